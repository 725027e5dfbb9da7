-- one row per item_id: units and stock of each day of the forecast horizon, in order
-- Has the items of the session's part (engine.item_parts).
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
    SELECT item_id, as_of, on_hand FROM inventory
    WHERE as_of >= run_date() AND as_of < labels_end()
        AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
),
known AS (
    SELECT DISTINCT item_id FROM item_day
),
dense AS (
    SELECT known.item_id, days.day FROM known CROSS JOIN days
),
-- The dense days are streamed past the tables that cover few of them, as in features/item_days.sql.
outcomes AS (
    SELECT
        dense.item_id,
        dense.day,
        CAST(coalesce(sold.units, 0) AS DOUBLE) AS units,
        -- The rule of features/item_days.sql.
        coalesce(stock.on_hand > 0 OR coalesce(sold.units, 0) > 0, true) AND NOT array_has(missing_label_days(), dense.day)
            AS in_stock
    FROM stock
        RIGHT JOIN (sold RIGHT JOIN dense ON sold.item_id = dense.item_id AND sold.event_day = dense.day)
            ON stock.item_id = dense.item_id AND stock.as_of = dense.day
)
SELECT
    item_id,
    ordered_list(day, units) AS future_units,
    ordered_list(day, in_stock) AS future_in_stock
FROM outcomes
GROUP BY item_id
