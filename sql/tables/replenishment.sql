-- one row per item_id with an inventory row: what to order today, and why
-- Continuous-review order-up-to arithmetic on quantiles of lead-time demand (Silver, Pyke, Thomas, "Inventory and
-- Production Management in Supply Chains", 4th ed., ch. 6): reorder point = the service-level quantile of demand over
-- the lead time, rounded up to whole units (the smallest stock that lasts with that probability); safety stock =
-- reorder point - median lead-time demand; order when the inventory position (on hand + on order) is at or below the
-- reorder point, up to the reorder point plus one lead time's mean demand. If stock is reviewed less often than daily, it has
-- to last until the delivery after the next review (ibid., section 6.9): the median grows with the days, the safety stock
-- with their root.
WITH stock AS (
    SELECT
        item_id,
        CAST(on_hand AS DOUBLE) AS on_hand,
        CAST(coalesce(on_order, 0) AS DOUBLE) AS on_order,
        greatest(coalesce(lead_time_days, default_lead_time_days()), 1) AS lead_time_days,
        CAST(coalesce(pack_size, 1) AS DOUBLE) AS pack_size,
        CAST(coalesce(min_order_quantity, 0) AS DOUBLE) AS min_order_quantity,
        coalesce(service_level, default_service_level()) AS service_level,
        row_number() OVER (PARTITION BY item_id ORDER BY as_of DESC) AS recency
    FROM inventory
    WHERE as_of <= CAST(run_date() AS DATE)
),
forecasts AS (
    SELECT item_id, mean, q05, q10, q25, q50, q75, q90, q95 FROM demand_forecasts WHERE step = 0
),
-- Lead-time demand moves by the factor by which the published forecasts moved towards the purchase intents.
moved AS (
    SELECT item_id, sum(mean) / sum(model_mean) AS factor FROM demand WHERE model_mean > 0 GROUP BY item_id
),
factors AS (
    SELECT forecasts.item_id, coalesce(moved.factor, 1.0) AS factor
    FROM forecasts LEFT JOIN moved ON moved.item_id = forecasts.item_id
),
lead_time_demand AS (
    SELECT
        forecasts.item_id,
        forecasts.mean * factors.factor AS mean,
        forecasts.q05 * factors.factor AS q05,
        forecasts.q10 * factors.factor AS q10,
        forecasts.q25 * factors.factor AS q25,
        forecasts.q50 * factors.factor AS q50,
        forecasts.q75 * factors.factor AS q75,
        forecasts.q90 * factors.factor AS q90,
        forecasts.q95 * factors.factor AS q95
    FROM forecasts JOIN factors ON factors.item_id = forecasts.item_id
),
-- The quantile at the service level, linear between the published ones; above q95 the normal tail's slope
-- (z(0.95) = 1.645) carries on from q90 and q95, capped at 0.9999.
quantile AS (
    SELECT
        stock.* EXCLUDE (recency),
        demand.* EXCLUDE (item_id),
        (stock.lead_time_days + review_period_days() - 1.0) / stock.lead_time_days AS lead_times_covered,
        CASE
            WHEN service_level <= 0.75 THEN q50 + (q75 - q50) * (service_level - 0.50) / 0.25
            WHEN service_level <= 0.90 THEN q75 + (q90 - q75) * (service_level - 0.75) / 0.15
            WHEN service_level <= 0.95 THEN q90 + (q95 - q90) * (service_level - 0.90) / 0.05
            ELSE q95 + (q95 - q90) / 0.363
                * (sqrt(-2.0 * ln(1.0 - service_level)) - sqrt(-2.0 * ln(0.05)))
        END AS lead_time_quantile
    FROM stock JOIN lead_time_demand AS demand ON stock.item_id = demand.item_id
    WHERE stock.recency = 1
),
target AS (
    SELECT
        *,
        -- Written so that one lead time adds exact zeros: a rounded quantity must not move.
        ceil(lead_time_quantile + q50 * (lead_times_covered - 1.0)
            + (lead_time_quantile - q50) * (sqrt(lead_times_covered) - 1.0)) AS reorder_point
    FROM quantile
),
need AS (
    SELECT
        *,
        on_hand + on_order AS position,
        CASE
            WHEN on_hand + on_order > reorder_point OR reorder_point <= 0 THEN 0.0
            ELSE ceil(greatest(reorder_point + mean - on_hand - on_order, min_order_quantity) / pack_size) * pack_size
        END AS order_quantity
    FROM target
)
SELECT
    item_id,
    on_hand,
    on_order,
    CAST(lead_time_days AS INT) AS lead_time_days,
    q50 AS lead_time_demand_q50,
    q90 AS lead_time_demand_q90,
    reorder_point - q50 AS safety_stock,
    reorder_point,
    order_quantity,
    -- P(lead-time demand > position), read off the quantile steps.
    CASE
        WHEN position >= q95 THEN 0.05 WHEN position >= q90 THEN 0.10 WHEN position >= q75 THEN 0.25
        WHEN position >= q50 THEN 0.50 WHEN position >= q25 THEN 0.75 WHEN position >= q10 THEN 0.90
        WHEN position >= q05 THEN 0.95 ELSE 1.0
    END AS stock_out_risk,
    CASE WHEN mean > 0 THEN on_hand / (mean / lead_time_days) END AS days_of_cover,
    CASE
        WHEN order_quantity = 0 AND reorder_point <= 0 THEN 'no demand expected in the lead time'
        WHEN order_quantity = 0
            THEN concat('position ', round(position), ' is above the reorder point ', round(reorder_point, 1))
        ELSE concat(
            'position ', round(position), ' is at or below the reorder point ', round(reorder_point, 1),
            ' (', round(service_level * 100, 1), ' % service over ', lead_time_days, ' days); order rounds up to packs of ',
            round(pack_size))
    END AS reason
FROM need
