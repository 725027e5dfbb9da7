-- one row per user_id: distinct items and categories of the last 7 and 28 days
-- The engine holds a join's first table in memory and streams the second: the small one stands first.
-- Grouped twice instead of count(DISTINCT …): memory then follows the pairs, not a set for every user.
WITH touched AS (
    SELECT user_id, item_id, max(event_day) AS last_day
    FROM user_event
    WHERE event_day >= run_date() - 28 AND item_id IS NOT NULL
    GROUP BY user_id, item_id
),
categories AS (
    SELECT t.user_id, i.category, max(t.last_day) AS last_day, count(*) AS items_28d,
        count(*) FILTER (WHERE t.last_day >= run_date() - 7) AS items_7d
    FROM item_category i RIGHT JOIN touched t ON t.item_id = i.item_id
    GROUP BY t.user_id, i.category
)
SELECT
    user_id,
    sum(items_28d) AS items_28d,
    sum(items_7d) AS items_7d,
    count(category) AS categories_28d,
    count(category) FILTER (WHERE last_day >= run_date() - 7) AS categories_7d
FROM categories
GROUP BY user_id
