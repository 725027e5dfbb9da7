-- one row per product_id and what lines say of it, with how many lines do
CREATE TABLE raw_items (
    product_id VARCHAR NOT NULL,
    category_code VARCHAR,
    brand VARCHAR,
    price DOUBLE,
    lines BIGINT NOT NULL
)
