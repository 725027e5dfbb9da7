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
sums AS (
    SELECT * FROM categories
    UNION ALL
    SELECT * FROM total
)
SELECT sums.*, intent_weight.intent_weight
FROM sums CROSS JOIN intent_weight
