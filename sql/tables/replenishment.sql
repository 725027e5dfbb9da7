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
-- (z(0.95) = 1.645) carries on from q90 and q95. A bad service level never comes here: sql/master/checked_inventory.sql.
quantile AS (
    SELECT
        stock.* EXCLUDE (recency),
        demand.* EXCLUDE (item_id),
        on_hand + on_order AS position,
        (stock.lead_time_days + review_period_days() - 1.0) / stock.lead_time_days AS lead_times_covered,
        CASE
            WHEN service_level <= 0.05 THEN q05 * service_level / 0.05
            WHEN service_level <= 0.10 THEN q05 + (q10 - q05) * (service_level - 0.05) / 0.05
            WHEN service_level <= 0.25 THEN q10 + (q25 - q10) * (service_level - 0.10) / 0.15
            WHEN service_level <= 0.50 THEN q25 + (q50 - q25) * (service_level - 0.25) / 0.25
            WHEN service_level <= 0.75 THEN q50 + (q75 - q50) * (service_level - 0.50) / 0.25
            WHEN service_level <= 0.90 THEN q75 + (q90 - q75) * (service_level - 0.75) / 0.15
            WHEN service_level <= 0.95 THEN q90 + (q95 - q90) * (service_level - 0.90) / 0.05
            ELSE q95 + (q95 - q90) / 0.363
                * (sqrt(-2.0 * ln(1.0 - service_level)) - sqrt(-2.0 * ln(0.05)))
        END AS lead_time_quantile
    FROM stock JOIN lead_time_demand AS demand ON stock.item_id = demand.item_id
    WHERE stock.recency = 1
),
-- A millionth of a unit is subtracted before rounding up, here and below, so that the last digit of a sum adds no whole unit or
-- pack, and a spreadsheet that repeats the arithmetic gets the same numbers.
target AS (
    SELECT
        *,
        greatest(ceil(lead_time_quantile + q50 * (lead_times_covered - 1.0)
            + (lead_time_quantile - q50) * (sqrt(lead_times_covered) - 1.0) - 0.000001), 0.0) AS reorder_point
    FROM quantile
),
need AS (
    SELECT
        *,
        CASE
            WHEN position > reorder_point OR reorder_point <= 0 THEN 0.0
            ELSE greatest(
                ceil((greatest(reorder_point + mean - position, min_order_quantity) - 0.000001) / pack_size), 1.0) * pack_size
        END AS order_quantity,
        -- P(lead-time demand > position): the distribution is linear between the quantiles. Demand is whole, so a position of 5
        -- runs out at 6, and the distribution is read between them: at 0.6 rather than halfway, because a whole quantile covers
        -- somewhat more than its level (lab/results/stock_out_risk.md). Above q95 the tail is that of the service level. Markov's
        -- inequality bounds the whole: where all quantiles are 0, only the mean says how rare a sale is.
        CASE WHEN position < 0 THEN 1.0 ELSE least(
            CASE
                WHEN position + 0.6 < q05 THEN 1.0 - 0.05 * (position + 0.6) / q05
                WHEN position + 0.6 < q10 THEN 0.95 - 0.05 * (position + 0.6 - q05) / (q10 - q05)
                WHEN position + 0.6 < q25 THEN 0.90 - 0.15 * (position + 0.6 - q10) / (q25 - q10)
                WHEN position + 0.6 < q50 THEN 0.75 - 0.25 * (position + 0.6 - q25) / (q50 - q25)
                WHEN position + 0.6 < q75 THEN 0.50 - 0.25 * (position + 0.6 - q50) / (q75 - q50)
                WHEN position + 0.6 < q90 THEN 0.25 - 0.15 * (position + 0.6 - q75) / (q90 - q75)
                WHEN position + 0.6 < q95 THEN 0.10 - 0.05 * (position + 0.6 - q90) / (q95 - q90)
                ELSE exp(-0.5 * power(
                    sqrt(-2.0 * ln(0.05)) + 0.363 * greatest(position - q95, 0.0) / greatest(q95 - q90, 0.5), 2.0))
            END,
            mean / (position + 1.0))
        END AS stock_out_risk
    FROM target
),
-- The parts of the sentence in `reason`.
named AS (
    SELECT
        *,
        concat('position ', CAST(round(position) AS BIGINT), ' (', CAST(round(on_hand) AS BIGINT), ' on hand + ',
            CAST(round(on_order) AS BIGINT), ' on order)') AS position_text,
        concat(lead_time_days, ' days',
            CASE WHEN review_period_days() > 1
                THEN concat(' and a review every ', review_period_days(), ' days') ELSE '' END) AS period_text,
        concat(regexp_replace(CAST(round(service_level * 100, 2) AS VARCHAR), '[.]0$', ''), ' % certainty') AS certainty_text
    FROM need
)
SELECT
    item_id,
    on_hand,
    on_order,
    CAST(lead_time_days AS INT) AS lead_time_days,
    CAST(review_period_days() AS INT) AS review_period_days,
    service_level,
    pack_size,
    min_order_quantity,
    mean AS lead_time_demand_mean,
    q05 AS lead_time_demand_q05,
    q10 AS lead_time_demand_q10,
    q25 AS lead_time_demand_q25,
    q50 AS lead_time_demand_q50,
    q75 AS lead_time_demand_q75,
    q90 AS lead_time_demand_q90,
    q95 AS lead_time_demand_q95,
    reorder_point - q50 AS safety_stock,
    reorder_point,
    order_quantity,
    stock_out_risk,
    CASE WHEN mean > 0 THEN on_hand / (mean / lead_time_days) END AS days_of_cover,
    CASE
        WHEN reorder_point <= 0
            THEN concat('no order: expected demand over ', period_text, ' is ', round(mean, 2),
                ' units, so the reorder point is 0')
        WHEN position > reorder_point
            THEN concat('no order: ', position_text, ' is above the reorder point ', CAST(reorder_point AS BIGINT),
                ', which covers the demand of ', period_text, ' with ', certainty_text)
        ELSE concat(
            position_text, ' is at or below the reorder point ', CAST(reorder_point AS BIGINT),
            ', which covers the demand of ', period_text, ' (expected ', round(mean, 1), ', median ', round(q50, 1),
            ' over the lead time) with ', certainty_text, '; order ',
            CAST(order_quantity AS BIGINT), ' to reach ', CAST(reorder_point AS BIGINT), ' + ', round(mean, 1),
            CASE WHEN min_order_quantity > 0
                THEN concat(', at least ', CAST(round(min_order_quantity) AS BIGINT)) ELSE '' END,
            CASE WHEN pack_size > 1
                THEN concat(', in packs of ', CAST(round(pack_size) AS BIGINT)) ELSE '' END)
    END AS reason
FROM named
