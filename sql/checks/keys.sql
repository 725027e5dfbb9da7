-- check (stops the night): one row per table in which a key is null or occurs more than once
-- Generated from src/tables/published.rs by `make docs`. Rows are grouped by the columns of a key, not by a text made of
-- them, because recommendation has ten rows for each user.
WITH repeated AS (
    SELECT 'intent (user_id)' AS name, CAST(user_id AS VARCHAR) AS first_key
    FROM intent
    GROUP BY user_id
    HAVING count(*) > 1 OR user_id IS NULL
    UNION ALL
    SELECT 'intent_shadow (user_id)' AS name, CAST(user_id AS VARCHAR) AS first_key
    FROM intent_shadow
    GROUP BY user_id
    HAVING count(*) > 1 OR user_id IS NULL
    UNION ALL
    SELECT 'recommendation (user_id, rank)' AS name, concat(user_id, ' / ', rank) AS first_key
    FROM recommendation
    GROUP BY user_id, rank
    HAVING count(*) > 1 OR user_id IS NULL OR rank IS NULL
    UNION ALL
    SELECT 'recommendation (user_id, item_id)' AS name, concat(user_id, ' / ', item_id) AS first_key
    FROM recommendation
    GROUP BY user_id, item_id
    HAVING count(*) > 1 OR user_id IS NULL OR item_id IS NULL
    UNION ALL
    SELECT 'demand (item_id, target_date)' AS name, concat(item_id, ' / ', target_date) AS first_key
    FROM demand
    GROUP BY item_id, target_date
    HAVING count(*) > 1 OR item_id IS NULL OR target_date IS NULL
    UNION ALL
    SELECT 'demand_total (level, category, target_date)' AS name, concat(level, ' / ', category, ' / ', target_date) AS first_key
    FROM demand_total
    GROUP BY level, category, target_date
    HAVING count(*) > 1 OR level IS NULL OR category IS NULL OR target_date IS NULL
    UNION ALL
    SELECT 'replenishment (item_id)' AS name, CAST(item_id AS VARCHAR) AS first_key
    FROM replenishment
    GROUP BY item_id
    HAVING count(*) > 1 OR item_id IS NULL
    UNION ALL
    SELECT 'segment (segment)' AS name, CAST(segment AS VARCHAR) AS first_key
    FROM segment
    GROUP BY segment
    HAVING count(*) > 1 OR segment IS NULL
    UNION ALL
    SELECT 'lake_day (day)' AS name, CAST(day AS VARCHAR) AS first_key
    FROM lake_day
    GROUP BY day
    HAVING count(*) > 1 OR day IS NULL
)
SELECT
    concat('keys of ', name) AS subject,
    'each once, none null' AS expected,
    concat(count(*), ' keys more than once or null, the first ', coalesce(min(first_key), 'null')) AS got
FROM repeated
GROUP BY name
ORDER BY subject
