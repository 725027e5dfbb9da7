-- one row per day of the demand history, oldest first
-- Reckoned in whole numbers: DataFusion 55 plans no comparison with a date that a column was taken from.
SELECT CAST(CAST(run_date() AS INT) - CAST(value AS INT) AS DATE) AS day FROM generate_series(1, demand_history_days())
