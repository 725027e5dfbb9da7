-- one row per week of the last eight, counted back from the run date: users who did something, and how far they came
WITH days AS (
    SELECT
        user_id,
        CAST(CAST(run_date() AS DATE) - 1 - event_day AS BIGINT) / 7 AS weeks_ago,
        views + clicks > 0 AS viewed,
        carts > 0 AS added,
        purchases > 0 AS bought
    FROM user_day_rows
    WHERE event_day >= CAST(run_date() AS DATE) - 56
),
users AS (
    SELECT user_id, weeks_ago, bool_or(viewed) AS viewed, bool_or(added) AS added, bool_or(bought) AS bought
    FROM days
    GROUP BY user_id, weeks_ago
)
SELECT
    CAST(run_date() AS DATE) - CAST(7 * (weeks_ago + 1) AS INT) AS week_from,
    count(*) AS active_users,
    count(*) FILTER (WHERE viewed) AS viewing_users,
    count(*) FILTER (WHERE added) AS cart_users,
    count(*) FILTER (WHERE bought) AS buying_users
FROM users
GROUP BY weeks_ago
ORDER BY week_from
