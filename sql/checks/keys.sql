-- one row per table in which a key is null or occurs more than once (stops the night)
WITH keys AS (
    SELECT 'intent' AS name, user_id AS key FROM intent
    UNION ALL SELECT 'recommendation (user, rank)' AS name, concat(user_id, ' / ', rank) AS key FROM recommendation
    UNION ALL SELECT 'recommendation (user, item)' AS name, concat(user_id, ' / ', item_id) AS key FROM recommendation
    UNION ALL SELECT 'demand' AS name, concat(item_id, ' / ', target_date) AS key FROM demand
    UNION ALL SELECT 'replenishment' AS name, item_id AS key FROM replenishment
    UNION ALL SELECT 'segment' AS name, segment AS key FROM segment
),
repeated AS (
    SELECT name, key, count(*) AS times FROM keys GROUP BY name, key HAVING count(*) > 1 OR key IS NULL
),
final AS (
    SELECT
        concat('keys of ', name) AS subject,
        'each once, none null' AS expected,
        concat(count(*), ' keys more than once or null, the first ', coalesce(min(key), 'null')) AS got
    FROM repeated
    GROUP BY name
)
SELECT subject, expected, got FROM final ORDER BY subject
