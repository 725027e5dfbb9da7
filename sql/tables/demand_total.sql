-- one row per category and target date, and one per target date for the total: sums of the published item forecasts
-- Built from the items up, so that items, categories and the total agree (bottom-up reconciliation; Hyndman, Ahmed,
-- Athanasopoulos and Shang 2011, "Optimal combination forecasts for hierarchical time series"); sql/checks/sums.sql checks
-- it before anything is published.
WITH categories AS (
    SELECT
        'category' AS level,
        coalesce(category, '') AS category,
        target_date,
        sum(mean) AS mean,
        sum(model_mean) AS model_mean,
        sum(intent_units) AS intent_units
    FROM demand
    GROUP BY coalesce(category, ''), target_date
),
total AS (
    SELECT
        'total' AS level,
        '' AS category,
        target_date,
        sum(mean) AS mean,
        sum(model_mean) AS model_mean,
        sum(intent_units) AS intent_units
    FROM categories
    GROUP BY target_date
),
final AS (
    SELECT level, category, target_date, mean, model_mean, intent_units FROM categories
    UNION ALL SELECT level, category, target_date, mean, model_mean, intent_units FROM total
)
SELECT
    f.level, f.category, f.target_date, f.mean, f.model_mean, f.intent_units, w.intent_weight
FROM final f CROSS JOIN intent_weight w
