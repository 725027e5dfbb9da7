-- one row per event of a guest within the look-back, under the login that the guest became, as that night knew it
-- A night computes these rows once for all parts: a guest's own bucket does not determine the login's.
SELECT
    stitched.canonical_user_id AS user_id,
    events.session_id, events.ts, events.event_type, events.item_id, events.query, events.text, events.dwell_ms,
    events.quantity, events.price, events.event_day,
    coalesce(events.event_id, events.event_key) AS event_key
FROM stitched JOIN unit_event AS events ON events.user_id = stitched.user_id
WHERE events.event_day < run_date()
    AND events.event_day >= run_date() - CAST(look_back_days() AS INT)
    AND events.arrival_day < run_date()
