-- one row per item_id: its most frequent category, brand and price; missing values and prices of 0 are ignored
WITH categories AS (
    SELECT product_id, category_code, sum(lines) AS lines FROM raw_items
    WHERE category_code IS NOT NULL GROUP BY product_id, category_code
),
brands AS (
    SELECT product_id, brand, sum(lines) AS lines FROM raw_items WHERE brand IS NOT NULL GROUP BY product_id, brand
),
prices AS (
    SELECT product_id, price, sum(lines) AS lines FROM raw_items WHERE price > 0 GROUP BY product_id, price
),
category AS (
    SELECT product_id, first_value(category_code ORDER BY lines DESC, category_code) AS category_code
    FROM categories GROUP BY product_id
),
brand AS (
    SELECT product_id, first_value(brand ORDER BY lines DESC, brand) AS brand FROM brands GROUP BY product_id
),
price AS (
    SELECT product_id, first_value(price ORDER BY lines DESC, price) AS price FROM prices GROUP BY product_id
),
known AS (
    SELECT DISTINCT product_id FROM raw_items
)
SELECT
    known.product_id AS item_id,
    CAST(NULL AS VARCHAR) AS title,
    replace(category.category_code, '.', '/') AS category,
    brand.brand,
    price.price,
    CAST(NULL AS ARRAY<REAL>) AS image_vector,
    CAST(NULL AS ARRAY<REAL>) AS video_vector,
    CAST(NULL AS ARRAY<ARRAY<REAL>>) AS video_frames,
    CAST(NULL AS BYTEA) AS image
FROM known
    LEFT JOIN category ON known.product_id = category.product_id
    LEFT JOIN brand ON known.product_id = brand.product_id
    LEFT JOIN price ON known.product_id = price.product_id
