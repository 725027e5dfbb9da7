-- one row per day of the lake of the last 60 before the run date
SELECT day, rows_read, events, kind
FROM lake_day
WHERE day >= CAST(run_date() AS DATE) - 60
ORDER BY day
