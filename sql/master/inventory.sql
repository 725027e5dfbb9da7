-- one row per item_id and as_of: stock at the start of that local day
-- Several rows of an item and day are several places: stock and orders add up, and the longest lead time and the highest service
-- level count. Rows that disagree in anything else are bad (sql/master/conflicting_inventory.sql). Without any such rows all pass
-- through.
SELECT item_id, as_of, on_hand, on_order, lead_time_days, pack_size, min_order_quantity, unit_cost, service_level
FROM checked_inventory
-- reason IS NULL, written flat: a plan for a cluster cannot be nested much deeper.
WHERE NOT has_repeated_stock() AND item_id IS NOT NULL AND as_of IS NOT NULL AND column_out_of_range IS NULL
UNION ALL
SELECT
    item_id,
    as_of,
    sum(on_hand) AS on_hand,
    sum(on_order) AS on_order,
    max(lead_time_days) AS lead_time_days,
    max(pack_size) AS pack_size,
    max(min_order_quantity) AS min_order_quantity,
    max(unit_cost) AS unit_cost,
    max(service_level) AS service_level
FROM checked_inventory
WHERE has_repeated_stock() AND item_id IS NOT NULL AND as_of IS NOT NULL AND column_out_of_range IS NULL
GROUP BY item_id, as_of
HAVING coalesce(min(pack_size) = max(pack_size), true)
    AND coalesce(min(min_order_quantity) = max(min_order_quantity), true)
    AND coalesce(min(unit_cost) = max(unit_cost), true)
