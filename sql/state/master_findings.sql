-- one row per view of master data and finding: how many keys, rows or ids of good rows it concerns
-- combined: keys that have several rows, which count as one. erased_user: rows of erased persons, which are dropped. unknown_item: rows whose item is neither in the catalogue nor in an
-- event. cycles: persons whose ids refer to one another in a circle, without a final login. unstitched: ids of groups that are
-- too large.
WITH item_keys AS (
    SELECT DISTINCT item_id FROM item_rows WHERE is_repeated_item(item_id)
),
user_keys AS (
    SELECT user_id FROM user_rows GROUP BY user_id HAVING count(*) > 1
),
inventory_keys AS (
    SELECT item_id, as_of FROM checked_inventory
    WHERE has_repeated_stock() AND item_id IS NOT NULL AND as_of IS NOT NULL AND column_out_of_range IS NULL
    GROUP BY item_id, as_of
    HAVING count(*) > 1
),
erasure_keys AS (
    SELECT non_blank(user_id) AS user_id FROM lake_erasures GROUP BY non_blank(user_id) HAVING count(*) > 1
),
named AS (
    SELECT 'inventory' AS view, item_id FROM inventory
    UNION ALL
    SELECT 'promotions' AS view, item_id FROM promotions
),
-- First without the catalogue, which leaves few rows to look up among the days of items.
not_in_catalogue AS (
    SELECT named.view, named.item_id FROM named LEFT ANTI JOIN item_rows ON item_rows.item_id = named.item_id
),
unknown AS (
    SELECT not_in_catalogue.view, not_in_catalogue.item_id
    FROM not_in_catalogue LEFT ANTI JOIN unit_item_day ON unit_item_day.item_id = not_in_catalogue.item_id
),
cycles AS (
    SELECT DISTINCT person.canonical_user_id
    FROM person JOIN user_rows ON user_rows.user_id = person.canonical_user_id
    WHERE user_rows.canonical_user_id IS NOT NULL AND user_rows.canonical_user_id <> user_rows.user_id
)
SELECT 'items' AS view, 'combined' AS finding, count(*) AS concerned FROM item_keys
UNION ALL
SELECT 'users' AS view, 'combined' AS finding, count(*) AS concerned FROM user_keys
UNION ALL
SELECT 'users' AS view, 'erased_user' AS finding, count(*) AS concerned FROM lake_users WHERE is_erased(user_id)
UNION ALL
SELECT 'users' AS view, 'cycles' AS finding, count(*) AS concerned FROM cycles
UNION ALL
SELECT 'users' AS view, 'unstitched' AS finding, count(*) AS concerned FROM unstitched
UNION ALL
SELECT 'inventory' AS view, 'combined' AS finding, count(*) AS concerned FROM inventory_keys
UNION ALL
SELECT 'erasures' AS view, 'combined' AS finding, count(*) AS concerned FROM erasure_keys
UNION ALL
SELECT view, 'unknown_item' AS finding, count(*) AS concerned FROM unknown GROUP BY view
