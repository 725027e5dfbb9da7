-- one row per item_id and target date whose intent_units are not published; later nights read them from the state
SELECT demand.item_id, demand.target_date, demand.intent_units
FROM suppressed_items JOIN demand ON demand.item_id = suppressed_items.item_id
WHERE demand.intent_units IS NOT NULL
