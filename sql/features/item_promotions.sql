-- one row per item_id with a promotion in the forecast horizon: a flag and a price for each of its days, in order
-- Has the items of the session's part (engine.item_parts).
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
        touched.item_id,
        days.day,
        bool_or(coalesce(promotions.starts_on <= days.day AND promotions.ends_on >= days.day, false)) AS promoted,
        min(
            CASE WHEN promotions.starts_on <= days.day AND promotions.ends_on >= days.day
                THEN CAST(promotions.price AS DOUBLE) END
        ) AS price
    FROM touched CROSS JOIN days LEFT JOIN promotions ON promotions.item_id = touched.item_id
    GROUP BY touched.item_id, days.day
)
SELECT
    item_id,
    ordered_list(day, promoted) AS promoted_future,
    ordered_list(day, price) AS price_future
FROM flags
GROUP BY item_id
