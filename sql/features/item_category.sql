-- one row per item_id of the catalogue: its category (the smallest, where the catalogue names several)
-- Of the session's part of the items (engine.item_parts).
SELECT item_id, category FROM item_contents WHERE item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
