-- one row per item_id of the products file; brand is only National or Private
SELECT
    product_id AS item_id,
    CAST(NULL AS VARCHAR) AS title,
    concat_ws('/', department, product_category, product_type) AS category,
    brand,
    CAST(NULL AS DOUBLE) AS price,
    CAST(NULL AS ARRAY<REAL>) AS image_vector,
    CAST(NULL AS ARRAY<REAL>) AS video_vector,
    CAST(NULL AS ARRAY<ARRAY<REAL>>) AS video_frames,
    CAST(NULL AS BYTEA) AS image
FROM raw_items
