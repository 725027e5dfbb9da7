-- one row: how far tonight's forecasts move from the demand network (0) towards the purchase intents (1)
-- The combination of two forecasts with the least squared error over nights whose outcomes are known (Bates and Granger
-- 1969, "The combination of forecasts"; the covariance of both errors and a bias of either enter), fitted on categories over
-- the intents' horizon. With fewer than four such nights the weight is 0: the network forecasts alone.
WITH nights AS (
    SELECT item_id, target_date, _dt AS night, model_mean, intent_units
    FROM earlier_demand
    WHERE intent_units IS NOT NULL AND model_mean IS NOT NULL
        AND _dt <= run_date() - CAST(horizon_days() AS INT)
),
-- Days out of stock hide demand, so they are left out.
outcomes AS (
    SELECT item_id, day, units FROM item_days WHERE in_stock
),
categories AS (
    SELECT
        nights.night,
        item_category.category,
        sum(nights.model_mean) AS model_units,
        sum(nights.intent_units) AS intent_units,
        sum(outcomes.units) AS units
    FROM nights
        JOIN outcomes ON outcomes.item_id = nights.item_id AND outcomes.day = nights.target_date
        LEFT JOIN item_category ON item_category.item_id = nights.item_id
    GROUP BY nights.night, item_category.category
),
fitted AS (
    SELECT
        count(DISTINCT night) AS nights,
        sum((units - model_units) * (intent_units - model_units)) AS moved,
        sum((intent_units - model_units) * (intent_units - model_units)) AS apart
    FROM categories
)
SELECT
    CASE
        WHEN reconcile_intents() AND nights >= 4 AND apart > 0 THEN least(1.0, greatest(0.0, moved / apart)) ELSE 0.0
    END AS intent_weight
FROM fitted
