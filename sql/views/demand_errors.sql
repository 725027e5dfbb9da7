-- one row per level (item, category, total): mean squared error of a horizon's units over earlier nights whose horizon has passed
-- Compares the network's forecast, the sum of the purchase intents and the published forecast with the units sold on days in
-- stock. Query it as of a date by which the horizons have passed, with the lake and the output: it also reads what was not published.
WITH nights AS (
    SELECT _dt AS night, item_id, target_date, coalesce(category, '') AS category, mean, model_mean, intent_units
    FROM earlier_demand
    WHERE intent_units IS NOT NULL AND _dt <= run_date() - CAST(horizon_days() AS INT)
),
outcomes AS (
    SELECT item_id, day, units FROM item_days WHERE in_stock
),
days AS (
    SELECT nights.*, outcomes.units
    FROM nights JOIN outcomes ON outcomes.item_id = nights.item_id AND outcomes.day = nights.target_date
),
sums AS (
    SELECT 'item' AS level, night, item_id AS member, sum(mean) AS published, sum(model_mean) AS network,
        sum(intent_units) AS intents, sum(units) AS units
    FROM days GROUP BY night, item_id
    UNION ALL SELECT 'category' AS level, night, category AS member, sum(mean) AS published, sum(model_mean) AS network,
        sum(intent_units) AS intents, sum(units) AS units
    FROM days GROUP BY night, category
    UNION ALL SELECT 'total' AS level, night, '' AS member, sum(mean) AS published, sum(model_mean) AS network,
        sum(intent_units) AS intents, sum(units) AS units
    FROM days GROUP BY night
)
SELECT
    level,
    count(*) AS sums,
    avg((network - units) * (network - units)) AS network_error,
    avg((intents - units) * (intents - units)) AS intents_error,
    avg((published - units) * (published - units)) AS published_error
FROM sums
GROUP BY level
ORDER BY level
