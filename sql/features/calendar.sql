-- one row per day of the demand history, oldest first
-- Computed in whole numbers: DataFusion 55 cannot plan a comparison with a date from which a column was subtracted.
SELECT CAST(CAST(run_date() AS INT) - CAST(value AS INT) AS DATE) AS day FROM generate_series(1, demand_history_days())
