-- one row per item_id with a promotion in the forecast horizon: a flag and a price for each of its days, in order
-- Of the session's part of the items (engine.item_parts).
WITH days AS (
    SELECT run_date() + CAST(value AS INT) AS day FROM generate_series(0, demand_horizon_days() - 1)
),
touched AS (
    SELECT DISTINCT item_id FROM promotions
    WHERE ends_on >= run_date() AND starts_on < run_date() + CAST(demand_horizon_days() AS INT)
        AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
),
flags AS (
    SELECT
        t.item_id,
        d.day,
        bool_or(coalesce(p.starts_on <= d.day AND p.ends_on >= d.day, false)) AS promoted,
        min(CASE WHEN p.starts_on <= d.day AND p.ends_on >= d.day THEN CAST(p.price AS DOUBLE) END) AS price
    FROM touched t CROSS JOIN days d LEFT JOIN promotions p ON p.item_id = t.item_id
    GROUP BY t.item_id, d.day
)
SELECT
    item_id,
    ordered_list(day, promoted) AS promoted_future,
    ordered_list(day, price) AS price_future
FROM flags
GROUP BY item_id
