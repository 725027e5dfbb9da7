-- one row per item_id and promotion; both dates belong to it
SELECT
    item_id, -- item on promotion
    starts_on, -- first day
    ends_on, -- last day
    price, -- price of one unit on these days
    _file -- file of the row
FROM raw_promotions
