-- one row per item_id and day of the history since it was first seen, dense: a day without events is a day of zeros
-- Of the session's part of the items (engine.item_parts).
WITH first_seen AS (
    -- As item_day knows them. Read where they lie: a plan for a cluster may not be nested much deeper than this one.
    SELECT item_id, min(event_day) AS first_day FROM unit_item_day
    WHERE event_day < run_date() AND arrival_day < run_date()
        AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    GROUP BY item_id
),
stock AS (
    SELECT item_id, as_of, max(on_hand) AS on_hand FROM inventory
    WHERE as_of < run_date() AND as_of >= run_date() - CAST(demand_history_days() AS INT)
        AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    GROUP BY item_id, as_of
),
happened AS (
    SELECT item_id, event_day, units, returns, revenue, views, carts, price_sum, price_events FROM item_day
    WHERE event_day >= run_date() - CAST(demand_history_days() AS INT)
),
prices AS (
    SELECT item_id, max(price) AS price FROM items
    WHERE item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    GROUP BY item_id
),
promoted AS (
    SELECT DISTINCT p.item_id, c.day
    FROM promotions p JOIN calendar c ON c.day >= p.starts_on AND c.day <= p.ends_on
    WHERE item_bucket(p.item_id) BETWEEN item_bucket_first() AND item_bucket_last()
),
dense AS (
    SELECT f.item_id, c.day, CAST(c.day - f.first_day AS BIGINT) AS days_since_first_seen
    FROM first_seen f JOIN calendar c ON c.day >= f.first_day
)
-- The engine holds a join's first table in memory and streams the second: what is known of some days stands first, and the
-- dense days, by far the most rows, last.
SELECT
    n.item_id,
    n.day,
    CAST(coalesce(d.units, 0) AS DOUBLE) AS units,
    CAST(coalesce(d.returns, 0) AS DOUBLE) AS returns,
    CAST(coalesce(d.revenue, 0) AS DOUBLE) AS revenue,
    CAST(coalesce(d.views, 0) AS DOUBLE) AS views,
    CAST(coalesce(d.carts, 0) AS DOUBLE) AS carts,
    coalesce(CAST(d.price_sum AS DOUBLE) / nullif(d.price_events, 0), p.price) AS price,
    m.item_id IS NOT NULL AS promoted,
    -- No inventory row: nothing is known against stock. A sale proves stock whatever the snapshot says; a day on which
    -- nobody so much as looked has no units, and is out of stock all the same where the snapshot says so.
    coalesce(s.on_hand > 0 OR coalesce(d.units, 0) > 0, true) AS in_stock,
    i.intent_units,
    n.days_since_first_seen
FROM item_intents i
    RIGHT JOIN (
        promoted m
        RIGHT JOIN (
            prices p
            RIGHT JOIN (
                stock s
                RIGHT JOIN (happened d RIGHT JOIN dense n ON d.item_id = n.item_id AND d.event_day = n.day)
                    ON s.item_id = n.item_id AND s.as_of = n.day
            ) ON p.item_id = n.item_id
        ) ON m.item_id = n.item_id AND m.day = n.day
    ) ON i.item_id = n.item_id AND i.day = n.day
