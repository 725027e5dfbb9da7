-- one row per row of the lake's items, with the reason if it is bad
WITH named AS (
    SELECT * EXCLUDE (item_id), non_blank(item_id) AS item_id FROM lake_items
)
SELECT
    *,
    CASE
        WHEN item_id IS NULL THEN 'null_id'
        WHEN isnan(price) OR price < 0 OR price >= price_max() THEN 'out_of_range'
    END AS reason,
    CASE WHEN item_id IS NOT NULL AND (isnan(price) OR price < 0 OR price >= price_max()) THEN 'price' END AS column_name
FROM named
