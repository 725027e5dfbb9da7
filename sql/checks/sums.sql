-- one row per category, or the total, that is not the sum of its items, or not reconciled with the intents (stops the night)
WITH items AS (
    SELECT coalesce(category, '') AS category, target_date, mean FROM demand
),
wanted AS (
    SELECT 'category' AS level, category, target_date, sum(mean) AS mean FROM items GROUP BY category, target_date
    UNION ALL SELECT 'total' AS level, '' AS category, target_date, sum(mean) AS mean FROM items GROUP BY target_date
),
-- Summed, so that a category that is there twice counts twice.
published AS (
    SELECT level, category, target_date, sum(mean) AS mean FROM demand_total GROUP BY level, category, target_date
),
sums AS (
    SELECT
        coalesce(w.level, p.level) AS level,
        coalesce(w.category, p.category) AS category,
        w.mean AS wanted,
        p.mean AS published
    FROM wanted w
        FULL JOIN published p ON p.level = w.level AND p.category = w.category AND p.target_date = w.target_date
),
-- Over the days of the intents' horizon: between the network and the intents, where tonight's weight says.
reconciled AS (
    SELECT
        level,
        category,
        sum((1.0 - intent_weight) * model_mean + intent_weight * intent_units) AS wanted,
        sum(mean) AS published
    FROM demand_total
    WHERE intent_units IS NOT NULL
    GROUP BY level, category
),
faults AS (
    SELECT 'the sum of its items' AS rule, level, category, wanted, published FROM sums
    UNION ALL SELECT 'network and intents, reconciled' AS rule, level, category, wanted, published FROM reconciled
),
final AS (
    SELECT
        rtrim(concat('demand of ', level, ' ', category)) AS subject,
        concat(rule, ', ', round(max(wanted), 6)) AS expected,
        concat(round(max(published), 6), ' in the worst of ', count(*), ' sums that differ') AS got
    FROM faults
    WHERE coalesce(abs(published - wanted) > 1e-6 * greatest(1.0, abs(wanted)) OR isnan(published - wanted), TRUE)
    GROUP BY level, category, rule
)
SELECT subject, expected, got FROM final ORDER BY subject, expected
