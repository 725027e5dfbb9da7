-- one row per item_id: of each fact the value that most lines name; lines without one do not count, nor prices of 0
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
    k.product_id AS item_id,
    CAST(NULL AS VARCHAR) AS title,
    replace(c.category_code, '.', '/') AS category,
    b.brand,
    p.price,
    CAST(NULL AS ARRAY<REAL>) AS image_vector,
    CAST(NULL AS ARRAY<REAL>) AS video_vector,
    CAST(NULL AS ARRAY<ARRAY<REAL>>) AS video_frames,
    CAST(NULL AS BYTEA) AS image
FROM known k
    LEFT JOIN category c ON k.product_id = c.product_id
    LEFT JOIN brand b ON k.product_id = b.product_id
    LEFT JOIN price p ON k.product_id = p.product_id
