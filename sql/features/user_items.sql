-- one row per user_id: distinct items and categories of the last 7 and 28 days
-- The engine holds a join's first table in memory and streams the second, so the small one comes first. Grouping twice
-- instead of count(DISTINCT …) keeps one row a pair, not a set for every user.
WITH touched AS (
    SELECT user_id, item_id, max(event_day) AS last_day
    FROM user_event
    WHERE event_day >= run_date() - 28 AND item_id IS NOT NULL
    GROUP BY user_id, item_id
),
categories AS (
    SELECT
        touched.user_id,
        item_category.category,
        max(touched.last_day) AS last_day,
        count(*) AS items_28d,
        count(*) FILTER (WHERE touched.last_day >= run_date() - 7) AS items_7d
    FROM item_category RIGHT JOIN touched ON touched.item_id = item_category.item_id
    GROUP BY touched.user_id, item_category.category
)
SELECT
    user_id,
    sum(items_28d) AS items_28d,
    sum(items_7d) AS items_7d,
    count(category) AS categories_28d,
    count(category) FILTER (WHERE last_day >= run_date() - 7) AS categories_7d
FROM categories
GROUP BY user_id
