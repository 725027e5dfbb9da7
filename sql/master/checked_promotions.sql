-- one row per row of the lake's promotions, with the reason if it is bad
WITH judged AS (
    SELECT
        * EXCLUDE (item_id, _dt),
        non_blank(item_id) AS item_id,
        CASE
            WHEN ends_on < starts_on THEN 'ends_on'
            WHEN isnan(price) OR price < 0 OR price >= price_max() THEN 'price'
        END AS column_out_of_range
    FROM lake_promotions
)
SELECT
    *,
    CASE
        WHEN item_id IS NULL THEN 'null_id'
        WHEN starts_on IS NULL OR ends_on IS NULL THEN 'null_time'
        WHEN column_out_of_range IS NOT NULL THEN 'out_of_range'
    END AS reason,
    CASE WHEN item_id IS NOT NULL AND starts_on IS NOT NULL AND ends_on IS NOT NULL THEN column_out_of_range END
        AS column_name
FROM judged
