-- one row per item_id and as_of whose good rows disagree in pack size, minimum order or cost
SELECT item_id, as_of
FROM checked_inventory
WHERE has_repeated_stock() AND reason IS NULL
GROUP BY item_id, as_of
HAVING min(pack_size) <> max(pack_size)
    OR min(min_order_quantity) <> max(min_order_quantity)
    OR min(unit_cost) <> max(unit_cost)
