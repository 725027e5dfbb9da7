-- one row per item_id: its most frequent description and price; prices of 0 and below are ignored
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
    known.item_id,
    title.title,
    CAST(NULL AS VARCHAR) AS category,
    CAST(NULL AS VARCHAR) AS brand,
    price.price,
    CAST(NULL AS ARRAY<REAL>) AS image_vector,
    CAST(NULL AS ARRAY<REAL>) AS video_vector,
    CAST(NULL AS ARRAY<ARRAY<REAL>>) AS video_frames,
    CAST(NULL AS BYTEA) AS image
FROM known
    LEFT JOIN title ON known.item_id = title.item_id
    LEFT JOIN price ON known.item_id = price.item_id
