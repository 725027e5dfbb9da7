-- one row per event of a guest within the look-back, under the login that the guest became, as that night knew it
-- A night of many parts keeps these rows once: a guest's own bucket says nothing about the login's.
SELECT
    s.canonical_user_id AS user_id,
    e.session_id, e.ts, e.event_type, e.item_id, e.query, e.text, e.dwell_ms, e.quantity, e.price, e.event_day, e.event_key
FROM stitched s JOIN unit_event e ON e.user_id = s.user_id
WHERE e.event_day < run_date()
    AND e.event_day >= run_date() - CAST(look_back_days() AS INT)
    AND e.arrival_day < run_date()
