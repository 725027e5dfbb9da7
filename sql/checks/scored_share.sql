-- one row if too small a share of the users to be scored has a purchase probability (stops the night)
WITH users AS (SELECT count(DISTINCT user_id) AS users FROM feature_users),
scored AS (
    SELECT count(DISTINCT i.user_id) AS scored
    FROM intent AS i
    JOIN feature_users AS u ON i.user_id = u.user_id
    WHERE i.p_purchase IS NOT NULL
),
final AS (
    SELECT
        'share of users scored' AS subject,
        concat('at least ', scored_share_min) AS expected,
        concat(scored, ' of ', users) AS got
    FROM users CROSS JOIN scored CROSS JOIN check_settings
    WHERE users > 0 AND CAST(scored AS DOUBLE) / CAST(users AS DOUBLE) < scored_share_min
)
SELECT subject, expected, got FROM final
