-- one row per user_id with an item event within the horizon after the run date: the distinct items, most engaged first
-- Ids of one person: persons.sql.
WITH touched AS (
    SELECT
        coalesce(p.canonical_user_id, e.user_id) AS user_id,
        e.item_id,
        max(CASE e.event_type WHEN 'purchase' THEN 3 WHEN 'cart' THEN 2 WHEN 'favorite' THEN 2 ELSE 1 END) AS weight
    FROM persons p RIGHT JOIN unit_event e ON e.user_id = p.user_id
    WHERE e.event_day >= run_date()
        AND e.event_day < run_date() + CAST(horizon_days() AS INT)
        AND e.event_day < labels_end() AND e.arrival_day < labels_end()
        AND e.item_id IS NOT NULL
        AND e.user_id IS NOT NULL
    GROUP BY coalesce(p.canonical_user_id, e.user_id), e.item_id
),
by_person AS (
    SELECT user_id, ordered_list(-weight, item_id) AS next_items FROM touched GROUP BY user_id
),
absorbed AS (
    SELECT canonical_user_id AS user_id, ordered_list(0, user_id) AS ids FROM persons GROUP BY canonical_user_id
)
SELECT
    unnest(coalesce(array_append(a.ids, b.user_id), make_array(b.user_id))) AS user_id,
    b.next_items
FROM absorbed a RIGHT JOIN by_person b ON a.user_id = b.user_id
