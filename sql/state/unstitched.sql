-- one row per user_id of a group of more than stitched_max() connected ids, which is not stitched
WITH connected AS (
    SELECT user_id FROM user_rows WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id
    UNION
    SELECT canonical_user_id AS user_id FROM user_rows WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id
),
stitched_ids AS (
    SELECT user_id FROM person
    UNION
    SELECT canonical_user_id AS user_id FROM person
)
SELECT connected.user_id FROM connected LEFT ANTI JOIN stitched_ids ON connected.user_id = stitched_ids.user_id
