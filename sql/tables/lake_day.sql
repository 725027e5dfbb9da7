-- one row per day of the lake before the run date: rows read, good events, and what a day without events means
WITH days AS (
    SELECT unnest(lake_days()) AS day
)
SELECT day['day'] AS day, day['rows_read'] AS rows_read, day['events'] AS events, day['kind'] AS kind FROM days
