-- one row per item_id of the night's demand: how it and the item's order differ from the compared night's
-- The forecasts of the same days are compared: the first horizon_days() days that both nights forecast. An item that the compared
-- night did not forecast changes by all of its demand.
WITH now AS (
    SELECT item_id, target_date, mean FROM demand
    WHERE target_date < CAST(run_date() AS DATE) + CAST(horizon_days() AS INT)
),
earlier AS (
    SELECT item_id, target_date, mean FROM demand_history
    WHERE run_date = compared_date()
        AND target_date >= CAST(run_date() AS DATE)
        AND target_date < CAST(run_date() AS DATE) + CAST(horizon_days() AS INT)
),
common AS (
    SELECT count(*) AS forecasts FROM earlier
),
sums AS (
    SELECT
        now.item_id,
        sum(now.mean) FILTER (WHERE earlier.mean IS NOT NULL) AS demand_of_both,
        sum(earlier.mean) AS demand_before,
        sum(now.mean) AS demand_mean
    FROM earlier RIGHT JOIN now ON now.item_id = earlier.item_id AND now.target_date = earlier.target_date
    GROUP BY now.item_id
),
orders_before AS (
    SELECT item_id, on_hand, order_quantity, stock_out_risk FROM replenishment_history WHERE run_date = compared_date()
)
SELECT
    sums.item_id,
    sums.demand_mean,
    sums.demand_before,
    CASE
        WHEN sums.demand_before IS NOT NULL THEN sums.demand_of_both - sums.demand_before
        WHEN common.forecasts > 0 THEN sums.demand_mean
    END AS demand_change,
    replenishment.order_quantity,
    orders_before.order_quantity AS order_quantity_before,
    replenishment.stock_out_risk,
    orders_before.stock_out_risk AS stock_out_risk_before,
    replenishment.on_hand,
    orders_before.on_hand AS on_hand_before
FROM orders_before
    RIGHT JOIN (replenishment RIGHT JOIN sums ON replenishment.item_id = sums.item_id)
    ON orders_before.item_id = sums.item_id
    CROSS JOIN common
ORDER BY sums.item_id
