-- one row per week of the last eight, counted back from the run date: users who did something, and how far they came
-- Counts scored users only: consenting persons, without staff and bots. Counts below segment_users_min() are left out, weeks as a whole.
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
    CASE WHEN count(*) FILTER (WHERE viewed) >= segment_users_min() THEN count(*) FILTER (WHERE viewed) END AS viewing_users,
    CASE WHEN count(*) FILTER (WHERE added) >= segment_users_min() THEN count(*) FILTER (WHERE added) END AS cart_users,
    CASE WHEN count(*) FILTER (WHERE bought) >= segment_users_min() THEN count(*) FILTER (WHERE bought) END AS buying_users
FROM weeks
GROUP BY weeks_ago
HAVING count(*) >= segment_users_min()
ORDER BY week_from
