-- one row per item_id of the catalogue: its category
-- Has the items of the session's part (engine.item_parts).
SELECT item_id, category FROM item_contents WHERE item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
