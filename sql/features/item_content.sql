-- one row per item_id of the catalogue that has a vector: its picture's, or else its video's, for the demand network
-- Has the items of the session's part (engine.item_parts).
SELECT
    item_id,
    coalesce(most_named(image_vector), most_named(video_vector)) AS content
FROM item_rows
WHERE item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    AND coalesce(image_vector, video_vector) IS NOT NULL
GROUP BY item_id
