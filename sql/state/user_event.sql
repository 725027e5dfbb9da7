-- one row per event of a user within the look-back, as the night of the run date knew it
-- Of the session's part of the users: a night of many users builds part after part, training takes a sample.
-- The engine holds a join's first table in memory and streams the second: the small one stands first.
SELECT
    e.user_id,
    e.session_id, e.ts, e.event_type, e.item_id, e.query, e.text, e.dwell_ms, e.quantity, e.price, e.event_day, e.event_key
FROM stitched s RIGHT ANTI JOIN unit_event e ON e.user_id = s.user_id
WHERE e.user_bucket BETWEEN user_bucket_first() AND user_bucket_last()
    AND e.event_day < run_date()
    AND e.event_day >= run_date() - CAST(look_back_days() AS INT)
    AND e.arrival_day < run_date()
UNION ALL
SELECT
    user_id, session_id, ts, event_type, item_id, query, text, dwell_ms, quantity, price, event_day, event_key
FROM guest_event
WHERE user_bucket(user_id) BETWEEN user_bucket_first() AND user_bucket_last()
