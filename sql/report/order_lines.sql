-- one row per item_id with an inventory row or a forecast: its line of the order sheet, the most urgent first
-- Without an inventory row there is nothing to order, and all numbers but the expected demand are null.
WITH titles AS (
    SELECT item_id, title, category FROM items
),
expected AS (
    SELECT item_id, max(category) AS category, sum(mean) AS demand_mean FROM demand
    WHERE target_date < CAST(run_date() AS DATE) + CAST(horizon_days() AS INT)
    GROUP BY item_id
)
SELECT
    coalesce(replenishment.item_id, expected.item_id) AS item_id,
    substr(titles.title, 1, 200) AS title,
    coalesce(expected.category, titles.category) AS category,
    replenishment.order_quantity,
    replenishment.stock_out_risk,
    replenishment.days_of_cover,
    replenishment.on_hand,
    replenishment.on_order,
    replenishment.reorder_point,
    replenishment.safety_stock,
    replenishment.lead_time_days,
    replenishment.review_period_days,
    replenishment.service_level,
    replenishment.pack_size,
    replenishment.min_order_quantity,
    -- Expected units of the next horizon_days() days.
    expected.demand_mean,
    replenishment.lead_time_demand_mean,
    replenishment.lead_time_demand_q05,
    replenishment.lead_time_demand_q10,
    replenishment.lead_time_demand_q25,
    replenishment.lead_time_demand_q50,
    replenishment.lead_time_demand_q75,
    replenishment.lead_time_demand_q90,
    replenishment.lead_time_demand_q95,
    replenishment.reason
FROM titles
    RIGHT JOIN (expected FULL JOIN replenishment ON expected.item_id = replenishment.item_id)
    ON titles.item_id = coalesce(replenishment.item_id, expected.item_id)
ORDER BY
    replenishment.order_quantity > 0 DESC NULLS LAST,
    replenishment.stock_out_risk DESC NULLS LAST,
    replenishment.days_of_cover NULLS LAST,
    expected.demand_mean DESC NULLS LAST,
    coalesce(replenishment.item_id, expected.item_id)
