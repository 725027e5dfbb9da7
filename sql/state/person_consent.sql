-- one row per person_id with master data: what any id of the person said holds for all of them, and one refusal is enough
-- A night computes these rows once for all parts: the buckets of a person's ids differ.
SELECT
    coalesce(person.canonical_user_id, user_rows.user_id) AS person_id,
    bool_and(coalesce(user_rows.consent, consent_default())) AS consent,
    bool_or(coalesce(user_rows.excluded, false)) AS excluded
FROM person RIGHT JOIN user_rows ON user_rows.user_id = person.user_id
GROUP BY coalesce(person.canonical_user_id, user_rows.user_id)
