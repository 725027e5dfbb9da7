-- one row per segment and night of the last 60 days
SELECT run_date, segment, users, p_purchase_mean, p_churn_mean, expected_spend_mean
FROM segment_history
WHERE run_date > CAST(run_date() AS DATE) - 60
ORDER BY run_date, segment
