-- one row per event of a user within the look-back, as the night of the run date knew it
-- Has the users of the session's part (engine.user_parts; training takes a sample). The engine holds a join's first table in
-- memory and streams the second, so the small one comes first.
SELECT
    events.user_id, events.session_id, events.ts, events.event_type, events.item_id, events.query, events.text,
    events.dwell_ms, events.quantity, events.price, events.event_day,
    coalesce(events.event_id, events.event_key) AS event_key
FROM stitched RIGHT ANTI JOIN unit_event AS events ON events.user_id = stitched.user_id
WHERE events.user_bucket BETWEEN user_bucket_first() AND user_bucket_last()
    AND events.event_day < run_date()
    AND events.event_day >= run_date() - CAST(look_back_days() AS INT)
    AND events.arrival_day < run_date()
UNION ALL
SELECT * FROM guest_event
WHERE user_bucket(user_id) BETWEEN user_bucket_first() AND user_bucket_last()
