-- one row per level, category and target date: the night's sums as they are published
SELECT
    demand_total.* EXCLUDE (intent_units),
    CASE WHEN suppressed_categories.level IS NULL THEN demand_total.intent_units END AS intent_units
FROM suppressed_categories
    RIGHT JOIN demand_total
        ON demand_total.level = suppressed_categories.level AND demand_total.category = suppressed_categories.category
