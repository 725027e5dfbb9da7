-- one row per item_id and as_of: stock at the start of that local day
SELECT
    item_id, as_of, on_hand, on_order, lead_time_days, pack_size, min_order_quantity, unit_cost, service_level, _file
FROM raw_inventory
