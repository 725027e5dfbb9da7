-- one row per user_id and event_day before the run date, as that night knew it; guests count for the login they became
-- The engine holds a join's first table in memory and streams the second: the small one stands first.
-- Training takes a share of users, by hash.
SELECT
    coalesce(u.canonical_user_id, d.user_id) AS user_id,
    d.event_day,
    sum(d.events) AS events,
    sum(d.views) AS views,
    sum(d.clicks) AS clicks,
    sum(d.searches) AS searches,
    sum(d.favorites) AS favorites,
    sum(d.carts) AS carts,
    sum(d.cart_removals) AS cart_removals,
    sum(d.purchases) AS purchases,
    sum(d.returns) AS returns,
    sum(d.reviews) AS reviews,
    sum(d.units) AS units,
    sum(d.spend) AS spend,
    sum(d.refunds) AS refunds,
    sum(d.dwell_ms) AS dwell_ms,
    sum(d.dwell_events) AS dwell_events,
    sum(d.night_events) AS night_events,
    sum(d.morning_events) AS morning_events,
    sum(d.afternoon_events) AS afternoon_events,
    sum(d.evening_events) AS evening_events,
    min(d.first_at) AS first_at,
    max(d.last_at) AS last_at
FROM stitched u RIGHT JOIN unit_user_day d ON d.user_id = u.user_id
WHERE d.event_day < run_date() AND d.arrival_day < run_date()
    AND (user_share_end() IS NULL OR md5(coalesce(u.canonical_user_id, d.user_id)) < user_share_end())
GROUP BY coalesce(u.canonical_user_id, d.user_id), d.event_day
