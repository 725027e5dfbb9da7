-- one row per level (item, category, total): mean squared error of a horizon's units over all visible nights that passed
-- What the demand network said alone, what the purchase intents added up to, and what was published between them, beside
-- what was sold on days in stock. Read as of a date by which the horizons have passed.
WITH nights AS (
    SELECT run_date AS night, item_id, target_date, coalesce(category, '') AS category, mean, model_mean, intent_units
    FROM demand_history
    WHERE intent_units IS NOT NULL AND run_date <= run_date() - CAST(horizon_days() AS INT)
),
outcomes AS (
    SELECT item_id, day, units FROM item_days WHERE in_stock
),
days AS (
    SELECT n.night, n.item_id, n.category, n.mean, n.model_mean, n.intent_units, o.units
    FROM nights n JOIN outcomes o ON o.item_id = n.item_id AND o.day = n.target_date
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
),
final AS (
    SELECT
        level,
        count(*) AS sums,
        avg((network - units) * (network - units)) AS network_error,
        avg((intents - units) * (intents - units)) AS intents_error,
        avg((published - units) * (published - units)) AS published_error
    FROM sums
    GROUP BY level
)
SELECT level, sums, network_error, intents_error, published_error FROM final ORDER BY level
