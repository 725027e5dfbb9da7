-- one row per item_id that the night or the compared one forecasts: how its demand and its order changed
-- The forecasts of the same days are compared: the first horizon_days() days that both nights forecast. An item that only one of them
-- forecasts changes by all of its demand. compared_date() is null on a first night; it is replaced by a day without a night, because
-- delta-rs 1.1 drops a filter that is null as a whole.
WITH now AS (
    SELECT item_id, target_date, mean FROM demand
    WHERE target_date < CAST(run_date() AS DATE) + CAST(horizon_days() AS INT)
),
earlier AS (
    SELECT item_id, target_date, mean FROM demand_history
    WHERE run_date = coalesce(compared_date(), DATE '0001-01-01')
        AND target_date >= CAST(run_date() AS DATE)
        AND target_date < CAST(run_date() AS DATE) + CAST(horizon_days() AS INT)
),
days_of_both AS (
    SELECT now.target_date
    FROM (SELECT DISTINCT target_date FROM now) AS now
        JOIN (SELECT DISTINCT target_date FROM earlier) AS earlier ON earlier.target_date = now.target_date
),
sums_now AS (
    SELECT now.item_id, sum(now.mean) AS demand_mean, sum(now.mean) FILTER (WHERE days_of_both.target_date IS NOT NULL) AS compared
    FROM days_of_both RIGHT JOIN now ON now.target_date = days_of_both.target_date
    GROUP BY now.item_id
),
sums_before AS (
    SELECT earlier.item_id, sum(earlier.mean) AS demand_before
    FROM days_of_both JOIN earlier ON earlier.target_date = days_of_both.target_date
    GROUP BY earlier.item_id
),
sums AS (
    SELECT
        coalesce(sums_now.item_id, sums_before.item_id) AS item_id,
        sums_now.demand_mean,
        sums_now.compared,
        sums_before.demand_before
    FROM sums_before FULL JOIN sums_now ON sums_now.item_id = sums_before.item_id
),
common AS (
    SELECT count(*) AS days FROM days_of_both
),
orders_before AS (
    SELECT item_id, on_hand, order_quantity, stock_out_risk FROM replenishment_history WHERE run_date = coalesce(compared_date(), DATE '0001-01-01')
)
SELECT
    sums.item_id,
    sums.demand_mean,
    sums.demand_before,
    CASE WHEN common.days > 0 THEN coalesce(sums.compared, 0) - coalesce(sums.demand_before, 0) END AS demand_change,
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
