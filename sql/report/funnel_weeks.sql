-- one row per week of the last eight, counted back from the run date: users who did something, and how far they came
-- Has the users who are scored: consenting persons, without staff and bots. Weeks of fewer than segment_users_min() users are left out.
WITH days AS (
    SELECT
        user_day_rows.user_id,
        CAST(CAST(run_date() AS DATE) - 1 - user_day_rows.event_day AS BIGINT) / 7 AS weeks_ago,
        user_day_rows.views + user_day_rows.clicks > 0 AS viewed,
        user_day_rows.carts > 0 AS added,
        user_day_rows.purchases > 0 AS bought
    FROM scored_users JOIN user_day_rows ON user_day_rows.user_id = scored_users.user_id
    WHERE user_day_rows.event_day >= CAST(run_date() AS DATE) - 56
),
weeks AS (
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
FROM weeks
GROUP BY weeks_ago
HAVING count(*) >= segment_users_min()
ORDER BY week_from
