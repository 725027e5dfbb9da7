-- one row per item_id and day of the history since it was first seen, dense: a day without events is a day of zeros, and out of
-- stock if the lake's events of that day are missing
-- Has the items of the session's part (engine.item_parts).
WITH first_seen AS (
    -- The items of item_day, read from the rollups: a plan for a cluster cannot be nested much deeper than this one.
    SELECT item_id, min(event_day) AS first_day FROM unit_item_day
    WHERE event_day < run_date() AND arrival_day < run_date()
        AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    GROUP BY item_id
),
stock AS (
    SELECT item_id, as_of, on_hand FROM inventory
    WHERE as_of < run_date() AND as_of >= run_date() - CAST(demand_history_days() AS INT)
        AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
),
happened AS (
    SELECT item_id, event_day, units, returns, revenue, views, carts, price_sum, price_events FROM item_day
    WHERE event_day >= run_date() - CAST(demand_history_days() AS INT)
),
prices AS (
    SELECT item_id, most_named(price) AS price FROM item_rows
    WHERE item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    GROUP BY item_id
),
promoted AS (
    SELECT DISTINCT promotions.item_id, calendar.day
    FROM promotions JOIN calendar ON calendar.day >= promotions.starts_on AND calendar.day <= promotions.ends_on
    WHERE item_bucket(promotions.item_id) BETWEEN item_bucket_first() AND item_bucket_last()
),
dense AS (
    SELECT first_seen.item_id, calendar.day, CAST(calendar.day - first_seen.first_day AS BIGINT) AS days_since_first_seen
    FROM first_seen JOIN calendar ON calendar.day >= first_seen.first_day
)
-- The engine holds a join's first table in memory and streams the second, so the tables that cover few days come first and
-- the dense days, by far the most rows, last.
SELECT
    dense.item_id,
    dense.day,
    CAST(coalesce(happened.units, 0) AS DOUBLE) AS units,
    CAST(coalesce(happened.returns, 0) AS DOUBLE) AS returns,
    CAST(coalesce(happened.revenue, 0) AS DOUBLE) AS revenue,
    CAST(coalesce(happened.views, 0) AS DOUBLE) AS views,
    CAST(coalesce(happened.carts, 0) AS DOUBLE) AS carts,
    coalesce(CAST(happened.price_sum AS DOUBLE) / nullif(happened.price_events, 0), prices.price) AS price,
    promoted.item_id IS NOT NULL AS promoted,
    -- Without an inventory row the item is taken to be in stock. A sale proves stock whatever the snapshot says; a day without
    -- any event has no units, and is out of stock if the snapshot says so. A missing day of the lake says as little about demand
    -- as a day out of stock.
    coalesce(stock.on_hand > 0 OR coalesce(happened.units, 0) > 0, true) AND NOT array_has(missing_days(), dense.day)
        AS in_stock,
    item_intents.intent_units,
    dense.days_since_first_seen
FROM item_intents
    RIGHT JOIN (
        promoted
        RIGHT JOIN (
            prices
            RIGHT JOIN (
                stock
                RIGHT JOIN (
                    happened RIGHT JOIN dense ON happened.item_id = dense.item_id AND happened.event_day = dense.day
                ) ON stock.item_id = dense.item_id AND stock.as_of = dense.day
            ) ON prices.item_id = dense.item_id
        ) ON promoted.item_id = dense.item_id AND promoted.day = dense.day
    ) ON item_intents.item_id = dense.item_id AND item_intents.day = dense.day
