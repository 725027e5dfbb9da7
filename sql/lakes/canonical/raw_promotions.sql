-- raw columns of the files below promotions/: a file must have the NOT NULL ones and may have the others
CREATE TABLE raw_promotions (
    item_id VARCHAR NOT NULL,
    starts_on DATE NOT NULL,
    ends_on DATE NOT NULL,
    price DOUBLE
)
