-- one row per user_id who searched within the look-back: the last five queries, newest first
WITH ranked AS (
    SELECT user_id, query, row_number() OVER (PARTITION BY user_id ORDER BY ts DESC, event_key DESC) AS place
    FROM user_event
    WHERE event_type = 'search' AND query IS NOT NULL
)
SELECT user_id, ordered_list(place, query) AS last_queries
FROM ranked
WHERE place <= 5
GROUP BY user_id
