-- one row per consenting user_id that signed up before as_of() or was ever seen, without staff, bots and the erased
-- Refusals and erasures take effect at once and for every id of a person, whenever the ids came to be known as one.
WITH known AS (
    SELECT user_id FROM user_day_rows
    UNION
    SELECT coalesce(stitched.canonical_user_id, users.user_id) AS user_id
    FROM stitched RIGHT JOIN users ON users.user_id = stitched.user_id
    WHERE users.user_id IS NOT NULL AND (users.signed_up_at IS NULL OR users.signed_up_at < as_of())
        AND user_bucket(coalesce(stitched.canonical_user_id, users.user_id))
            BETWEEN user_bucket_first() AND user_bucket_last()
),
erased AS (
    SELECT DISTINCT coalesce(person.canonical_user_id, erasures.user_id) AS person_id
    FROM person RIGHT JOIN erasures ON erasures.user_id = person.user_id
),
known_persons AS (
    SELECT known.user_id, coalesce(person.canonical_user_id, known.user_id) AS person_id
    FROM person RIGHT JOIN known ON known.user_id = person.user_id
)
SELECT known_persons.user_id
FROM known_persons
    LEFT JOIN person_consent ON known_persons.person_id = person_consent.person_id
    LEFT ANTI JOIN erased ON known_persons.person_id = erased.person_id
WHERE coalesce(person_consent.consent, consent_default()) AND NOT coalesce(person_consent.excluded, false)
    AND NOT is_erased(known_persons.user_id)
