-- check (stops the night): one row per category, or the total, that is not the sum of its items or not reconciled with intents
WITH items AS (
    SELECT coalesce(category, '') AS category, target_date, mean FROM demand
),
wanted AS (
    SELECT 'category' AS level, category, target_date, sum(mean) AS mean FROM items GROUP BY category, target_date
    UNION ALL SELECT 'total' AS level, '' AS category, target_date, sum(mean) AS mean FROM items GROUP BY target_date
),
-- Summed, so that a category with two rows counts twice.
published AS (
    SELECT level, category, target_date, sum(mean) AS mean FROM demand_total GROUP BY level, category, target_date
),
sums AS (
    SELECT
        coalesce(wanted.level, published.level) AS level,
        coalesce(wanted.category, published.category) AS category,
        wanted.mean AS wanted,
        published.mean AS published
    FROM wanted
        FULL JOIN published
            ON published.level = wanted.level
            AND published.category = wanted.category
            AND published.target_date = wanted.target_date
),
-- Over the days of the intents' horizon: between the network's sum and the intents', by tonight's weight. A category of few users may
-- stay as the network forecasts it (sql/tables/demand.sql), so the total is not looked at.
reconciled AS (
    SELECT
        level,
        category,
        CASE
            WHEN abs(sum(mean) - sum(model_mean)) <= 1e-6 * greatest(1.0, sum(model_mean)) THEN sum(model_mean)
            ELSE sum((1.0 - intent_weight) * model_mean + intent_weight * intent_units)
        END AS wanted,
        sum(mean) AS published
    FROM demand_total
    WHERE intent_units IS NOT NULL AND level = 'category'
    GROUP BY level, category
),
faults AS (
    SELECT 'the sum of its items' AS rule, level, category, wanted, published FROM sums
    UNION ALL SELECT 'network and intents, reconciled' AS rule, level, category, wanted, published FROM reconciled
)
SELECT
    rtrim(concat('demand of ', level, ' ', category)) AS subject,
    concat(rule, ', ', round(max(wanted), 6)) AS expected,
    concat(round(max(published), 6), ' in the worst of ', count(*), ' sums that differ') AS got
FROM faults
WHERE coalesce(abs(published - wanted) > 1e-6 * greatest(1.0, abs(wanted)) OR isnan(published - wanted), TRUE)
GROUP BY level, category, rule
ORDER BY subject, expected
