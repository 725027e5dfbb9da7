-- one row per item_id: its most frequent category
SELECT
    item_id,
    CAST(NULL AS VARCHAR) AS title,
    first_value(category_id ORDER BY lines DESC, category_id) FILTER (WHERE category_id IS NOT NULL) AS category,
    CAST(NULL AS VARCHAR) AS brand,
    CAST(NULL AS DOUBLE) AS price,
    CAST(NULL AS ARRAY<REAL>) AS image_vector,
    CAST(NULL AS ARRAY<REAL>) AS video_vector,
    CAST(NULL AS ARRAY<ARRAY<REAL>>) AS video_frames,
    CAST(NULL AS BYTEA) AS image
FROM raw_items
GROUP BY item_id
