-- one or more rows per user_id and event_day before the run date, as that night knew it: late arrivals are not yet merged
-- Of the session's part of the users: a night of many users builds part after part, training takes a sample.
-- The engine holds a join's first table in memory and streams the second: the small one stands first.
SELECT
    d.user_id, d.event_day,
    d.events, d.views, d.clicks, d.searches, d.favorites, d.carts, d.cart_removals,
    d.purchases, d.returns, d.reviews, d.units, d.spend, d.refunds, d.dwell_ms,
    d.dwell_events, d.night_events, d.morning_events, d.afternoon_events, d.evening_events, d.first_at, d.last_at
FROM stitched s RIGHT ANTI JOIN unit_user_day d ON d.user_id = s.user_id
WHERE d.user_bucket BETWEEN user_bucket_first() AND user_bucket_last()
    AND d.event_day < run_date() AND d.arrival_day < run_date()
UNION ALL
SELECT
    user_id, event_day,
    events, views, clicks, searches, favorites, carts, cart_removals,
    purchases, returns, reviews, units, spend, refunds, dwell_ms,
    dwell_events, night_events, morning_events, afternoon_events, evening_events, first_at, last_at
FROM guest_day
WHERE user_bucket(user_id) BETWEEN user_bucket_first() AND user_bucket_last()
