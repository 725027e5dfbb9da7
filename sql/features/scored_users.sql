-- one row per consenting user_id that is in users or was ever seen; staff, bots and the erased are left out
WITH known AS (
    SELECT user_id FROM user_day
    UNION
    SELECT coalesce(canonical_user_id, user_id) AS user_id FROM users WHERE user_id IS NOT NULL
),
master AS (
    SELECT user_id, bool_and(coalesce(consent, consent_default())) AS consent, bool_or(coalesce(excluded, false)) AS excluded
    FROM users
    GROUP BY user_id
)
SELECT k.user_id
FROM known k
    LEFT JOIN master m ON k.user_id = m.user_id
    LEFT ANTI JOIN erasures x ON k.user_id = x.user_id
WHERE coalesce(m.consent, consent_default()) AND NOT coalesce(m.excluded, false)
