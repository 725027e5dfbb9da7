-- one row per item_id of the catalogue: its category and the keys of what its title, picture and video say
-- The smallest of each, where the catalogue has several rows of an item. A key finds its vector in item_vectors.
SELECT
    item_id,
    min(category) AS category,
    min(content_key(title)) AS text_key,
    min(content_key(image_vector)) AS image_key,
    min(content_key(video_vector)) AS video_key
FROM items
WHERE item_id IS NOT NULL
GROUP BY item_id
