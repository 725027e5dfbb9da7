-- one row per consenting user_id that signed up before as_of() or was ever seen; staff, bots and the erased are left out
-- Refusals and erasures hold at once and for every id of a person, whenever the ids came to be known as one.
WITH known AS (
    SELECT user_id FROM user_day_rows
    UNION
    SELECT coalesce(s.canonical_user_id, u.user_id) AS user_id
    FROM stitched s RIGHT JOIN users u ON u.user_id = s.user_id
    WHERE u.user_id IS NOT NULL AND (u.signed_up_at IS NULL OR u.signed_up_at < as_of())
        AND user_bucket(coalesce(s.canonical_user_id, u.user_id)) BETWEEN user_bucket_first() AND user_bucket_last()
),
guests AS (
    SELECT user_id, canonical_user_id FROM users WHERE canonical_user_id IS NOT NULL
),
statements AS (
    SELECT user_id, consent, excluded FROM users
    UNION ALL
    SELECT g.user_id, u.consent, u.excluded FROM guests g JOIN users u ON u.user_id = g.canonical_user_id
),
master AS (
    SELECT user_id, bool_and(coalesce(consent, consent_default())) AS consent, bool_or(coalesce(excluded, false)) AS excluded
    FROM statements
    WHERE user_bucket(user_id) BETWEEN user_bucket_first() AND user_bucket_last()
    GROUP BY user_id
),
erased AS (
    SELECT user_id FROM erasures
    UNION
    SELECT g.user_id FROM guests g JOIN erasures x ON x.user_id = g.canonical_user_id
)
SELECT k.user_id
FROM known k
    LEFT JOIN master m ON k.user_id = m.user_id
    LEFT ANTI JOIN erased x ON k.user_id = x.user_id
WHERE coalesce(m.consent, consent_default()) AND NOT coalesce(m.excluded, false)
