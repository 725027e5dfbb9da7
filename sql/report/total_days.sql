-- one row per day: units sold on the last 180 days, what the night of that day had forecast, and the forecast of the days to come
WITH sold AS (
    SELECT event_day AS day, CAST(sum(units) AS DOUBLE) AS units FROM item_day
    WHERE event_day >= CAST(run_date() AS DATE) - 180
    GROUP BY event_day
),
forecasts AS (
    SELECT
        target_date AS day,
        mean,
        row_number() OVER (PARTITION BY target_date ORDER BY run_date DESC) AS recency
    FROM demand_total_history
    WHERE level = 'total' AND target_date >= CAST(run_date() AS DATE) - 180
        AND run_date >= CAST(run_date() AS DATE) - 210
        -- Days to come show this night's forecast or none.
        AND (target_date < CAST(run_date() AS DATE) OR run_date = CAST(run_date() AS DATE))
),
newest AS (
    SELECT day, mean FROM forecasts WHERE recency = 1
)
SELECT coalesce(newest.day, sold.day) AS day, sold.units, newest.mean AS forecast
FROM newest FULL JOIN sold ON sold.day = newest.day
ORDER BY day
