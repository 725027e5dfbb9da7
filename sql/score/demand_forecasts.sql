-- one row per item_id and step: step 0 is the cumulative demand over the lead time, step n the n-th day from the run date
WITH forecasts AS (
    SELECT item_id, unnest(forecast_demand(history)) AS forecast FROM item_history
)
SELECT
    item_id,
    forecast['step'] AS step,
    forecast['mean'] AS mean,
    forecast['q05'] AS q05,
    forecast['q10'] AS q10,
    forecast['q25'] AS q25,
    forecast['q50'] AS q50,
    forecast['q75'] AS q75,
    forecast['q90'] AS q90,
    forecast['q95'] AS q95
FROM forecasts
