-- one row per user_id, event_day and arrival_day: integers and decimals only, so that merging is exact
-- Every count of a user's events is declared here, once; state/user_day_rows.sql passes all of them through.
SELECT
    user_bucket,
    user_id,
    event_day,
    arrival_day,
    count(*) AS events,
    count(*) FILTER (WHERE event_type = 'view') AS views,
    count(*) FILTER (WHERE event_type = 'click') AS clicks,
    count(*) FILTER (WHERE event_type = 'search') AS searches,
    count(*) FILTER (WHERE event_type = 'favorite') AS favorites,
    count(*) FILTER (WHERE event_type = 'cart') AS carts,
    count(*) FILTER (WHERE event_type = 'remove_from_cart') AS cart_removals,
    count(*) FILTER (WHERE event_type = 'purchase' AND quantity > 0) AS purchases,
    count(*) FILTER (WHERE event_type = 'purchase' AND quantity < 0) AS returns,
    count(*) FILTER (WHERE event_type = 'review') AS reviews,
    coalesce(sum(greatest(quantity, 0)), 0) AS units,
    coalesce(sum(amount) FILTER (WHERE quantity > 0), 0) AS spend,
    coalesce(sum(-amount) FILTER (WHERE quantity < 0), 0) AS refunds,
    coalesce(sum(dwell_ms), 0) AS dwell_ms,
    count(dwell_ms) AS dwell_events,
    count(*) FILTER (WHERE local_hour(ts) < 6) AS night_events,
    count(*) FILTER (WHERE local_hour(ts) BETWEEN 6 AND 11) AS morning_events,
    count(*) FILTER (WHERE local_hour(ts) BETWEEN 12 AND 17) AS afternoon_events,
    count(*) FILTER (WHERE local_hour(ts) >= 18) AS evening_events,
    min(ts) AS first_at,
    max(ts) AS last_at
FROM unit_event
WHERE user_id IS NOT NULL
GROUP BY user_bucket, user_id, event_day, arrival_day
ORDER BY user_bucket
