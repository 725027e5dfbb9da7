-- raw columns of what import_items.sql gathered: a product's facts, and how many lines have them
CREATE TABLE raw_items (
    product_id VARCHAR NOT NULL,
    category_code VARCHAR,
    brand VARCHAR,
    price DOUBLE,
    lines BIGINT NOT NULL
)
