-- one row per user_id that turned out to be another login
SELECT user_id, max(canonical_user_id) AS canonical_user_id
FROM users
WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id
GROUP BY user_id
