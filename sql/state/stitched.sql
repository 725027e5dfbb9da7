-- one row per user_id that turned out to be another login, as far as as_of() knows
-- A guest's signed_up_at is the moment of that login: a later one was not known yet; a null one was always known. Chains and cycles
-- are one person; a group of more than stitched_max() ids is a shared device and is not stitched.
WITH resolved AS (
    SELECT unnest(connected_groups(user_id, canonical_user_id, stitched_max())) AS pair
    FROM user_rows
    WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id
        AND (signed_up_at IS NULL OR signed_up_at < as_of())
)
SELECT pair['user_id'] AS user_id, pair['canonical_user_id'] AS canonical_user_id
FROM resolved
