-- one row per user_id with master data: of several rows, per column the value that most rows name, or the smallest of those
-- For consent, one refusal is enough, and so is one excluded; next to a row that states it, a row without consent counts as features.consent_default. Every
-- login of a guest counts for stitching: state/ reads user_rows.
SELECT
    user_id,
    most_named(canonical_user_id) AS canonical_user_id,
    most_named(signed_up_at) AS signed_up_at,
    most_named(country) AS country,
    CASE WHEN count(consent) > 0 THEN bool_and(coalesce(consent, consent_default())) END AS consent,
    bool_or(excluded) AS excluded,
    min(_file) AS _file
FROM user_rows
GROUP BY user_id
