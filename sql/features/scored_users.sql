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
guests AS (
    SELECT user_id, canonical_user_id FROM users WHERE canonical_user_id IS NOT NULL
),
statements AS (
    SELECT user_id, consent, excluded FROM users
    UNION ALL
    SELECT guests.user_id, users.consent, users.excluded
    FROM guests JOIN users ON users.user_id = guests.canonical_user_id
),
master AS (
    SELECT
        user_id,
        bool_and(coalesce(consent, consent_default())) AS consent,
        bool_or(coalesce(excluded, false)) AS excluded
    FROM statements
    WHERE user_bucket(user_id) BETWEEN user_bucket_first() AND user_bucket_last()
    GROUP BY user_id
),
erased AS (
    SELECT user_id FROM erasures
    UNION
    SELECT guests.user_id FROM guests JOIN erasures ON erasures.user_id = guests.canonical_user_id
)
SELECT known.user_id
FROM known
    LEFT JOIN master ON known.user_id = master.user_id
    LEFT ANTI JOIN erased ON known.user_id = erased.user_id
WHERE coalesce(master.consent, consent_default()) AND NOT coalesce(master.excluded, false)
