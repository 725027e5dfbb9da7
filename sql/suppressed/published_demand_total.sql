-- one row per level, category and target date: the night's sums, with intent_units over the items that publish theirs
-- A sum over all items and those of the others would give away, day by day, what is not published.
WITH known AS (
    SELECT coalesce(demand.category, '') AS category, demand.target_date, demand.intent_units
    FROM suppressed_items RIGHT ANTI JOIN demand ON demand.item_id = suppressed_items.item_id
    WHERE demand.intent_units IS NOT NULL
),
sums AS (
    SELECT 'category' AS level, category, target_date, sum(intent_units) AS intent_units
    FROM known GROUP BY category, target_date
    UNION ALL
    SELECT 'total' AS level, '' AS category, target_date, sum(intent_units) AS intent_units FROM known GROUP BY target_date
)
SELECT demand_total.* EXCLUDE (intent_units), sums.intent_units
FROM sums RIGHT JOIN demand_total
    ON demand_total.level = sums.level AND demand_total.category = sums.category
        AND demand_total.target_date = sums.target_date
