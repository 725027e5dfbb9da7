-- one row per day of the lake of the last 180 before the run date
SELECT day, rows_read, events, kind
FROM lake_day
WHERE day >= CAST(run_date() AS DATE) - 180
ORDER BY day
