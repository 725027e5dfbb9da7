-- one row per good row of the lake's promotions; both dates belong to it
SELECT item_id, starts_on, ends_on, price, _file FROM checked_promotions
-- reason IS NULL, written flat: a plan for a cluster cannot be nested much deeper.
WHERE item_id IS NOT NULL AND starts_on IS NOT NULL AND ends_on IS NOT NULL AND column_out_of_range IS NULL
