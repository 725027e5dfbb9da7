-- one row per user_id that turned out to be another login before the labels' end
-- An outcome belongs to a person: a guest of the run date who logs in two days later buys under the login. So labels stitch
-- with what is known at the labels' end, features with what is known at as_of(), and a label has a row for every id that the
-- run date may have scored: the login, and each guest id that it absorbed.
WITH resolved AS (
    SELECT unnest(connected_groups(user_id, canonical_user_id, stitched_max())) AS pair
    FROM user_rows
    WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id
        AND (signed_up_at IS NULL OR local_day(signed_up_at) < labels_end())
)
SELECT pair['user_id'] AS user_id, pair['canonical_user_id'] AS canonical_user_id
FROM resolved
