-- one row per user_id with a purchase within the look-back: the distinct items bought
SELECT user_id, array_agg(DISTINCT item_id) AS bought
FROM user_event
WHERE event_type = 'purchase' AND quantity > 0 AND item_id IS NOT NULL
GROUP BY user_id
