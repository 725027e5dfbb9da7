-- one row per person_id with master data: what any id of the person said holds for all of them, and no consent wins
-- A night of many parts computes these rows once: the buckets of a person's ids differ.
SELECT
    coalesce(person.canonical_user_id, users.user_id) AS person_id,
    bool_and(coalesce(users.consent, consent_default())) AS consent,
    bool_or(coalesce(users.excluded, false)) AS excluded
FROM person RIGHT JOIN users ON users.user_id = person.user_id
GROUP BY coalesce(person.canonical_user_id, users.user_id)
