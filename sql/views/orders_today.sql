-- one row per item to order today, the most urgent first
SELECT item_id, order_quantity, stock_out_risk, days_of_cover, reason
FROM replenishment
WHERE order_quantity > 0
ORDER BY stock_out_risk DESC, days_of_cover
