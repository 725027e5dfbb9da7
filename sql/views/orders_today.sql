-- one row per item to order today, the most urgent first
WITH lines AS (
    SELECT item_id, order_quantity, stock_out_risk, days_of_cover, reason FROM replenishment
),
final AS (
    SELECT item_id, order_quantity, stock_out_risk, days_of_cover, reason FROM lines WHERE order_quantity > 0
)
SELECT item_id, order_quantity, stock_out_risk, days_of_cover, reason
FROM final
ORDER BY stock_out_risk DESC, days_of_cover
