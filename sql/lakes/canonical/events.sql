-- one row per raw event
SELECT
    event_id, user_id, session_id, ts, arrived_at, event_type, item_id, query, dwell_ms, quantity, price, currency,
    rating, text, _file, _dt
FROM raw_events
