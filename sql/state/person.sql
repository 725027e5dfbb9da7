-- one row per user_id that is another login's, whenever that became known: for consent and erasure, which take effect at once
WITH resolved AS (
    SELECT unnest(connected_groups(user_id, canonical_user_id, stitched_max())) AS pair
    FROM user_rows
    WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id
)
SELECT pair['user_id'] AS user_id, pair['canonical_user_id'] AS canonical_user_id
FROM resolved
