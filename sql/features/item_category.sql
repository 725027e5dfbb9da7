-- one row per item_id of the catalogue: its category (the smallest, where the catalogue names several)
SELECT item_id, min(category) AS category FROM items WHERE item_id IS NOT NULL GROUP BY item_id
