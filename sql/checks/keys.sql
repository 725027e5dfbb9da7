-- check (stops the night): one row per table in which a key is null or occurs more than once
-- Grouped by the columns of the key, not by a text made of them, because recommendation has ten rows for each user.
WITH repeated AS (
    SELECT 'intent' AS name, user_id AS first_key FROM intent
    GROUP BY user_id HAVING count(*) > 1 OR user_id IS NULL
    UNION ALL
    SELECT 'recommendation (user, rank)', concat(user_id, ' / ', rank) FROM recommendation
    GROUP BY user_id, rank HAVING count(*) > 1 OR user_id IS NULL OR rank IS NULL
    UNION ALL
    SELECT 'recommendation (user, item)', concat(user_id, ' / ', item_id) FROM recommendation
    GROUP BY user_id, item_id HAVING count(*) > 1 OR item_id IS NULL
    UNION ALL
    SELECT 'demand', concat(item_id, ' / ', target_date) FROM demand
    GROUP BY item_id, target_date HAVING count(*) > 1 OR item_id IS NULL OR target_date IS NULL
    UNION ALL
    SELECT 'replenishment', item_id FROM replenishment
    GROUP BY item_id HAVING count(*) > 1 OR item_id IS NULL
    UNION ALL
    SELECT 'segment', segment FROM segment
    GROUP BY segment HAVING count(*) > 1 OR segment IS NULL
)
SELECT
    concat('keys of ', name) AS subject,
    'each once, none null' AS expected,
    concat(count(*), ' keys more than once or null, the first ', coalesce(min(first_key), 'null')) AS got
FROM repeated
GROUP BY name
ORDER BY subject
