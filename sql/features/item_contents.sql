-- one row per item_id of the catalogue: its category and the content keys of its title, picture and video
-- The smallest of each if the catalogue has several rows for an item. A key finds its vectors in item_vectors, or among the
-- encoder outputs for content_texts and content_pictures.
SELECT
    item_id,
    min(category) AS category,
    min(content_key(title)) AS text_key,
    min(coalesce(content_key(image), content_key(image_vector))) AS image_key,
    min(coalesce(content_key(video_frames), content_key(video_vector))) AS video_key
FROM items
WHERE item_id IS NOT NULL
GROUP BY item_id
