-- raw columns of the products file
CREATE TABLE raw_items (
    product_id VARCHAR NOT NULL,
    manufacturer_id VARCHAR,
    department VARCHAR NOT NULL,
    brand VARCHAR,
    product_category VARCHAR,
    product_type VARCHAR,
    package_size VARCHAR
)
