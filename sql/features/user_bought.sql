-- one row per user_id with a purchase within the look-back: the distinct items bought
WITH pairs AS (
    SELECT user_id, item_id
    FROM user_event
    WHERE event_type = 'purchase' AND quantity > 0 AND item_id IS NOT NULL
    GROUP BY user_id, item_id
)
SELECT user_id, ordered_list(0, item_id) AS bought FROM pairs GROUP BY user_id
