-- one row per item_id and as_of: stock at the start of that local day
SELECT
    item_id, -- item in stock
    as_of, -- local day at whose start the stock was counted
    on_hand, -- units in stock
    on_order, -- units ordered and not yet delivered
    lead_time_days, -- days from order to delivery
    pack_size, -- units that are ordered together
    min_order_quantity, -- least units of an order
    unit_cost, -- cost of one unit
    service_level, -- wanted share of lead times without a stock-out
    _file -- file of the row
FROM raw_inventory
