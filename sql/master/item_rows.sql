-- one row per good row of the lake's items
SELECT item_id, title, category, brand, price, image_vector, video_vector, video_frames, image, _file
FROM checked_items
-- reason IS NULL, written flat: a plan for a cluster cannot be nested much deeper.
WHERE item_id IS NOT NULL AND (price IS NULL OR (price >= 0 AND price < price_max()))
