-- one row per segment and night: how many users it has and how likely they are to buy, over all visible nights
SELECT run_date, segment, users, p_purchase_mean, expected_spend_mean
FROM segment_history
ORDER BY segment, run_date
