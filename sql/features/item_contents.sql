-- one row per item_id of the catalogue: its category and the content keys of its title, picture and video
-- Of several rows of an item, what most of them name (sql/master/items.sql). A key finds its vectors in item_vectors, or among
-- the encoder outputs for content_texts and content_pictures.
SELECT
    item_id,
    most_named(category) AS category,
    content_key(most_named(title)) AS text_key,
    most_named(coalesce(content_key(image), content_key(image_vector))) AS image_key,
    most_named(coalesce(content_key(video_frames), content_key(video_vector))) AS video_key
FROM item_rows
GROUP BY item_id
