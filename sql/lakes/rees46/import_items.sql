-- one row per product_id and set of its facts: an import gathers them once, so that no night reads events for them
SELECT product_id, category_code, brand, price, count(*) AS lines
FROM raw_events
GROUP BY product_id, category_code, brand, price
ORDER BY product_id, category_code, brand, price
