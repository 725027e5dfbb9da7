-- one row per user_id that asked to be forgotten; a row without a user_id refuses its file before anything is read
SELECT non_blank(user_id) AS user_id, min(requested_at) AS requested_at
FROM lake_erasures
WHERE non_blank(user_id) IS NOT NULL
GROUP BY non_blank(user_id)
