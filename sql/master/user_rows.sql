-- one row per row of the lake's users with a user_id; a bad row counts as no consent and excluded: an error never gives consent
SELECT
    user_id,
    canonical_user_id,
    signed_up_at,
    country,
    CASE WHEN reason IS NULL THEN consent ELSE false END AS consent,
    CASE WHEN reason IS NULL THEN excluded ELSE true END AS excluded,
    _file
FROM checked_users
WHERE user_id IS NOT NULL
