-- one row per row of a raw file below promotions/: the columns that a file may have (NOT NULL: must have)
CREATE TABLE raw_promotions (
    item_id VARCHAR NOT NULL,
    starts_on DATE NOT NULL,
    ends_on DATE NOT NULL,
    price DOUBLE
)
