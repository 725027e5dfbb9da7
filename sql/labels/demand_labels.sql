-- one row per item_id: units and stock of each day of the forecast horizon, in order
-- Of the session's part of the items (engine.item_parts).
WITH days AS (
    SELECT run_date() + CAST(value AS INT) AS day FROM generate_series(0, demand_horizon_days() - 1)
),
sold AS (
    SELECT item_id, event_day, sum(units) AS units
    FROM unit_item_day
    WHERE event_day >= run_date() AND event_day < labels_end() AND arrival_day < labels_end()
        AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    GROUP BY item_id, event_day
),
stock AS (
    SELECT item_id, as_of, max(on_hand) AS on_hand FROM inventory
    WHERE as_of >= run_date() AND as_of < labels_end() AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    GROUP BY item_id, as_of
),
known AS (
    SELECT DISTINCT item_id FROM item_day
),
dense AS (
    SELECT k.item_id, d.day FROM known k CROSS JOIN days d
),
-- The dense days are streamed past what is known of some, as in features/item_days.sql.
outcomes AS (
    SELECT
        n.item_id,
        n.day,
        CAST(coalesce(s.units, 0) AS DOUBLE) AS units,
        -- As in features/item_days.sql.
        coalesce(t.on_hand > 0 OR coalesce(s.units, 0) > 0, true) AS in_stock
    FROM stock t
        RIGHT JOIN (sold s RIGHT JOIN dense n ON s.item_id = n.item_id AND s.event_day = n.day)
            ON t.item_id = n.item_id AND t.as_of = n.day
)
SELECT
    item_id,
    ordered_list(day, units) AS future_units,
    ordered_list(day, in_stock) AS future_in_stock
FROM outcomes
GROUP BY item_id
