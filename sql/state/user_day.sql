-- one row per user_id and event_day before the run date, as that night knew it; guests count for the login they became
SELECT
    user_id,
    event_day,
    sum(events) AS events,
    sum(views) AS views,
    sum(clicks) AS clicks,
    sum(searches) AS searches,
    sum(favorites) AS favorites,
    sum(carts) AS carts,
    sum(cart_removals) AS cart_removals,
    sum(purchases) AS purchases,
    sum(returns) AS returns,
    sum(reviews) AS reviews,
    sum(units) AS units,
    sum(spend) AS spend,
    sum(refunds) AS refunds,
    sum(dwell_ms) AS dwell_ms,
    sum(dwell_events) AS dwell_events,
    sum(night_events) AS night_events,
    sum(morning_events) AS morning_events,
    sum(afternoon_events) AS afternoon_events,
    sum(evening_events) AS evening_events,
    min(first_at) AS first_at,
    max(last_at) AS last_at
FROM user_day_rows
GROUP BY user_id, event_day
