-- one row per view of master data: its rows, and its bad rows
SELECT 'users' AS view, count(*) AS row_count, count(reason) AS bad FROM checked_users
UNION ALL
SELECT 'items' AS view, count(*) AS row_count, count(reason) AS bad FROM checked_items
UNION ALL
SELECT 'inventory' AS view, count(*) AS row_count, count(reason) AS bad FROM checked_inventory
UNION ALL
SELECT 'promotions' AS view, count(*) AS row_count, count(reason) AS bad FROM checked_promotions
