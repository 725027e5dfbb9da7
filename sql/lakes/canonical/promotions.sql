-- one row per item_id and promotion; both dates belong to it
SELECT item_id, starts_on, ends_on, price, _file FROM raw_promotions
