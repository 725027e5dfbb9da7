-- one row per user_id: distinct sessions of the last 7 and 28 days; an event without a session id is one session an hour
WITH visited AS (
    SELECT user_id, coalesce(session_id, CAST(date_trunc('hour', ts) AS VARCHAR)) AS session_id, max(event_day) AS last_day
    FROM user_event
    WHERE event_day >= run_date() - 28
    GROUP BY user_id, coalesce(session_id, CAST(date_trunc('hour', ts) AS VARCHAR))
)
SELECT
    user_id,
    count(*) AS sessions_28d,
    count(*) FILTER (WHERE last_day >= run_date() - 7) AS sessions_7d
FROM visited
GROUP BY user_id
