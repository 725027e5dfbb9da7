-- one row per user_id with an item event within the horizon after the run date: the distinct items, most engaged first
WITH touched AS (
    SELECT
        coalesce(u.canonical_user_id, e.user_id) AS user_id,
        e.item_id,
        max(CASE e.event_type WHEN 'purchase' THEN 3 WHEN 'cart' THEN 2 WHEN 'favorite' THEN 2 ELSE 1 END) AS weight
    FROM stitched u RIGHT JOIN unit_event e ON e.user_id = u.user_id
    WHERE e.event_day >= run_date()
        AND e.event_day < run_date() + CAST(horizon_days() AS INT)
        AND e.event_day < labels_end() AND e.arrival_day < labels_end()
        AND e.item_id IS NOT NULL
        AND e.user_id IS NOT NULL
    GROUP BY coalesce(u.canonical_user_id, e.user_id), e.item_id
)
SELECT user_id, array_agg(item_id ORDER BY weight DESC, item_id) AS next_items FROM touched GROUP BY user_id
