-- one row per user_id that turned out to be another login, as far as as_of() knows
-- A guest's signed_up_at is the moment of that login: a later one was not known yet; a null one was always known.
SELECT user_id, max(canonical_user_id) AS canonical_user_id
FROM users
WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id
    AND (signed_up_at IS NULL OR signed_up_at < as_of())
GROUP BY user_id
