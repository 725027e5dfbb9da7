-- one row per item_id of the catalogue: of several good rows, per column the value that most rows name, or the smallest of those
-- Only repeated rows are gathered; the others, with their pictures, pass through in small batches. A night reads item_rows and
-- votes over the columns that it needs.
SELECT item_id, title, category, brand, price, image_vector, video_vector, video_frames, image, _file
FROM item_rows
WHERE NOT is_repeated_item(item_id)
UNION ALL
SELECT
    item_id,
    most_named(title) AS title,
    most_named(category) AS category,
    most_named(brand) AS brand,
    most_named(price) AS price,
    most_named(image_vector) AS image_vector,
    most_named(video_vector) AS video_vector,
    most_named(video_frames) AS video_frames,
    most_named(image) AS image,
    min(_file) AS _file
FROM item_rows
WHERE is_repeated_item(item_id)
GROUP BY item_id
