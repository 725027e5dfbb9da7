-- one row: how far tonight's forecasts move from the demand network (0) towards the purchase intents (1)
-- The combination of two forecasts with the least squared error over nights whose outcomes are known (Bates and Granger
-- 1969, "The combination of forecasts": the covariance of both errors and a bias of either count), fitted on categories
-- over the intents' horizon. Fewer than four such nights have shown nothing yet, so the network stands alone.
WITH nights AS (
    SELECT item_id, target_date, _dt AS night, model_mean, intent_units
    FROM earlier_demand
    WHERE intent_units IS NOT NULL AND model_mean IS NOT NULL
        AND _dt <= run_date() - CAST(horizon_days() AS INT)
),
-- Days out of stock hide what was wanted, so they count for neither.
outcomes AS (
    SELECT item_id, day, units FROM item_days WHERE in_stock
),
categories AS (
    SELECT
        n.night,
        c.category,
        sum(n.model_mean) AS model_units,
        sum(n.intent_units) AS intent_units,
        sum(o.units) AS units
    FROM nights n
        JOIN outcomes o ON o.item_id = n.item_id AND o.day = n.target_date
        LEFT JOIN item_category c ON c.item_id = n.item_id
    GROUP BY n.night, c.category
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
