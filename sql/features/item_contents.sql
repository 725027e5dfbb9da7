-- one row per item_id of the catalogue: its category and the keys of what its title, picture and video say
-- The smallest of each, where the catalogue has several rows of an item. A key finds its vectors in item_vectors, or in
-- what an encoder made of content_texts and content_pictures.
SELECT
    item_id,
    min(category) AS category,
    min(content_key(title)) AS text_key,
    min(coalesce(content_key(image), content_key(image_vector))) AS image_key,
    min(coalesce(content_key(video_frames), content_key(video_vector))) AS video_key
FROM items
WHERE item_id IS NOT NULL
GROUP BY item_id
