-- one row per user_id with an item event within the horizon after the run date: the distinct items, most engaged first
-- Ids of one person: persons.sql.
WITH touched AS (
    SELECT
        coalesce(persons.canonical_user_id, events.user_id) AS user_id,
        events.item_id,
        max(CASE events.event_type WHEN 'purchase' THEN 3 WHEN 'cart' THEN 2 WHEN 'favorite' THEN 2 ELSE 1 END) AS weight
    FROM persons RIGHT JOIN unit_event AS events ON events.user_id = persons.user_id
    WHERE events.event_day >= run_date()
        AND events.event_day < run_date() + CAST(horizon_days() AS INT)
        AND events.event_day < labels_end() AND events.arrival_day < labels_end()
        AND events.item_id IS NOT NULL
        AND events.user_id IS NOT NULL
    GROUP BY coalesce(persons.canonical_user_id, events.user_id), events.item_id
),
by_person AS (
    SELECT user_id, ordered_list(-weight, item_id) AS next_items FROM touched GROUP BY user_id
),
absorbed AS (
    SELECT canonical_user_id AS user_id, ordered_list(0, user_id) AS ids FROM persons GROUP BY canonical_user_id
)
SELECT
    unnest(coalesce(array_append(absorbed.ids, by_person.user_id), make_array(by_person.user_id))) AS user_id,
    by_person.next_items
FROM absorbed RIGHT JOIN by_person ON absorbed.user_id = by_person.user_id
