-- one row per item_id: the description and the price that most order lines bear; prices of 0 and below do not count
WITH named AS (
    SELECT trim("StockCode") AS item_id, nullif(trim("Description"), '') AS title, "Price" AS price, lines FROM raw_items
),
titles AS (
    SELECT item_id, title, sum(lines) AS lines FROM named WHERE title IS NOT NULL GROUP BY item_id, title
),
prices AS (
    SELECT item_id, price, sum(lines) AS lines FROM named WHERE price > 0 GROUP BY item_id, price
),
title AS (
    SELECT item_id, first_value(title ORDER BY lines DESC, title) AS title FROM titles GROUP BY item_id
),
price AS (
    SELECT item_id, first_value(price ORDER BY lines DESC, price) AS price FROM prices GROUP BY item_id
),
known AS (
    SELECT DISTINCT item_id FROM named
)
SELECT
    k.item_id,
    t.title,
    CAST(NULL AS VARCHAR) AS category,
    CAST(NULL AS VARCHAR) AS brand,
    p.price,
    CAST(NULL AS ARRAY<REAL>) AS image_vector,
    CAST(NULL AS ARRAY<REAL>) AS video_vector,
    CAST(NULL AS ARRAY<ARRAY<REAL>>) AS video_frames,
    CAST(NULL AS BYTEA) AS image
FROM known k
    LEFT JOIN title t ON k.item_id = t.item_id
    LEFT JOIN price p ON k.item_id = p.item_id
