-- one row per level and category of demand_total whose intent_units are not published
-- A category is as small as its largest item, so that no user is counted twice. Where one is left out, the total of all
-- categories would give it away; so another one, with an item of at least k_min() users, is left out as well.
WITH categories AS (
    SELECT
        category,
        bool_or(users BETWEEN 1 AND k_min() - 1) AS has_small,
        bool_or(users >= k_min()) AS has_large,
        min(users) FILTER (WHERE users >= k_min()) AS least
    FROM item_users
    GROUP BY category
),
small AS (
    SELECT category FROM categories WHERE has_small AND NOT has_large
),
cover AS (
    SELECT category FROM categories
    WHERE has_large AND EXISTS (SELECT 1 FROM small)
    ORDER BY least, category
    LIMIT 1
)
SELECT 'category' AS level, category FROM small
UNION ALL SELECT 'category' AS level, category FROM cover
UNION ALL
-- Nothing covers a total of few users.
SELECT 'total' AS level, '' AS category
FROM (SELECT count(*) AS covers FROM cover)
WHERE covers = 0 AND EXISTS (SELECT 1 FROM small)
