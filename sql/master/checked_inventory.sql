-- one row per row of the lake's inventory, with the reason if it is bad
WITH judged AS (
    SELECT
        * EXCLUDE (item_id, _dt),
        non_blank(item_id) AS item_id,
        CASE
            WHEN on_hand IS NULL OR on_hand NOT BETWEEN -2147483648 AND 2147483647 THEN 'on_hand'
            WHEN on_order NOT BETWEEN -2147483648 AND 2147483647 THEN 'on_order'
            WHEN lead_time_days NOT BETWEEN 0 AND 3650 THEN 'lead_time_days'
            WHEN pack_size NOT BETWEEN 1 AND 2147483647 THEN 'pack_size'
            WHEN min_order_quantity NOT BETWEEN 0 AND 2147483647 THEN 'min_order_quantity'
            WHEN isnan(unit_cost) OR unit_cost < 0 OR unit_cost >= price_max() THEN 'unit_cost'
            -- 95 for "95 percent" is bad, and so is 1: no stock lasts with certainty.
            WHEN isnan(service_level) OR service_level <= 0 OR service_level >= 1 THEN 'service_level'
        END AS column_out_of_range
    FROM lake_inventory
)
SELECT
    *,
    CASE
        WHEN item_id IS NULL THEN 'null_id'
        WHEN as_of IS NULL THEN 'null_time'
        WHEN column_out_of_range IS NOT NULL THEN 'out_of_range'
    END AS reason,
    CASE WHEN item_id IS NOT NULL AND as_of IS NOT NULL THEN column_out_of_range END AS column_name
FROM judged
