-- one row per event of a user within the look-back, as the night of the run date knew it; training takes a share of users
-- The engine holds a join's first table in memory and streams the second: the small one stands first.
SELECT
    coalesce(u.canonical_user_id, e.user_id) AS user_id,
    e.session_id, e.ts, e.event_type, e.item_id, e.query, e.dwell_ms, e.quantity, e.price, e.event_day, e.event_key
FROM stitched u RIGHT JOIN unit_event e ON e.user_id = u.user_id
WHERE e.user_id IS NOT NULL
    AND e.event_day < run_date()
    AND e.event_day >= run_date() - CAST(look_back_days() AS INT)
    AND e.arrival_day < run_date()
    AND (user_share_end() IS NULL OR md5(coalesce(u.canonical_user_id, e.user_id)) < user_share_end())
