-- check (stops the night): one row if too small a share of the users to be scored has a purchase probability
WITH users AS (
    SELECT count(DISTINCT user_id) AS users FROM feature_users
),
scored AS (
    SELECT count(DISTINCT intent.user_id) AS scored
    FROM intent JOIN feature_users ON intent.user_id = feature_users.user_id
    WHERE intent.p_purchase IS NOT NULL
)
SELECT
    'share of users scored' AS subject,
    concat('at least ', scored_share_min) AS expected,
    concat(scored, ' of ', users) AS got
FROM users CROSS JOIN scored CROSS JOIN check_settings
WHERE users > 0 AND CAST(scored AS DOUBLE) / CAST(users AS DOUBLE) < scored_share_min
