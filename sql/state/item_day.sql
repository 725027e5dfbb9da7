-- one row per item_id and event_day before the run date, as that night knew it
-- Has the items of the session's part (engine.item_parts).
SELECT
    item_id,
    event_day,
    sum(units) AS units,
    sum(returns) AS returns,
    sum(revenue) AS revenue,
    sum(views) AS views,
    sum(carts) AS carts,
    sum(price_sum) AS price_sum,
    sum(price_events) AS price_events
FROM unit_item_day
WHERE event_day < run_date() AND arrival_day < run_date()
    AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
GROUP BY item_id, event_day
