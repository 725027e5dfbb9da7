-- one row per item_id and target date: the published demand forecast
WITH forecasts AS (
    SELECT item_id, step, mean, q05, q10, q25, q50, q75, q90, q95 FROM demand_forecasts
),
final AS (
    -- Step 0 is the cumulative demand over the lead time; replenishment reads it, planners of single days do not.
    SELECT
        item_id,
        CAST(run_date() AS DATE) + CAST(step - 1 AS INT) AS target_date,
        mean, q05, q10, q25, q50, q75, q90, q95
    FROM forecasts
    WHERE step >= 1
)
SELECT
    item_id,
    target_date,
    mean, q05, q10, q25, q50, q75, q90, q95,
    CAST(NULL AS DOUBLE) AS intent_units
FROM final
