-- one row per item_id, event_day and arrival_day; guests count, because demand needs no user_id
SELECT
    item_id,
    event_day,
    arrival_day,
    coalesce(sum(greatest(quantity, 0)), 0) AS units,
    coalesce(sum(greatest(-quantity, 0)), 0) AS returns,
    coalesce(sum(amount) FILTER (WHERE quantity > 0), 0) AS revenue,
    count(*) FILTER (WHERE event_type IN ('view', 'click')) AS views,
    count(*) FILTER (WHERE event_type = 'cart') AS carts,
    coalesce(sum(price), 0) AS price_sum,
    count(price) AS price_events
FROM unit_event
WHERE item_id IS NOT NULL
GROUP BY item_id, event_day, arrival_day
ORDER BY event_day
