-- one row per day of the demand history, oldest first
SELECT run_date() - CAST(value AS INT) AS day FROM generate_series(1, demand_history_days())
