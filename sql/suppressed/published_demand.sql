-- one row per item_id and target date: the night's demand as it is published
SELECT
    demand.* EXCLUDE (intent_units),
    CASE WHEN suppressed_items.item_id IS NULL THEN demand.intent_units END AS intent_units
FROM suppressed_items RIGHT JOIN demand ON demand.item_id = suppressed_items.item_id
