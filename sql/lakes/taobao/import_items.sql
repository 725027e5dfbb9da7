-- one row per item_id and category_id of the log: an import gathers them once, so that no night reads events for them
SELECT item_id, category_id, count(*) AS lines FROM raw_events GROUP BY item_id, category_id ORDER BY item_id, category_id
