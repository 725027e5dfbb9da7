-- one row per segment and night: how many users it holds and how likely they are to buy, over all visible nights
WITH nights AS (
    SELECT run_date, segment, users, p_purchase_mean, expected_spend_mean FROM segment_history
),
final AS (
    SELECT run_date, segment, users, p_purchase_mean, expected_spend_mean FROM nights
)
SELECT run_date, segment, users, p_purchase_mean, expected_spend_mean FROM final ORDER BY segment, run_date
