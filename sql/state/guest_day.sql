-- one row per day of a guest before the run date, under the login that the guest became, as that night knew it
-- A night of many parts keeps these rows once: a guest's own bucket says nothing about the login's.
SELECT
    s.canonical_user_id AS user_id, d.event_day,
    d.events, d.views, d.clicks, d.searches, d.favorites, d.carts, d.cart_removals,
    d.purchases, d.returns, d.reviews, d.units, d.spend, d.refunds, d.dwell_ms,
    d.dwell_events, d.night_events, d.morning_events, d.afternoon_events, d.evening_events, d.first_at, d.last_at
FROM stitched s JOIN unit_user_day d ON d.user_id = s.user_id
WHERE d.event_day < run_date() AND d.arrival_day < run_date()
