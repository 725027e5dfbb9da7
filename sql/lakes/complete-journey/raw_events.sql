-- raw columns of the order lines of transactions (84.51 degrees, "The Complete Journey 2.0")
CREATE TABLE raw_events (
    household_id VARCHAR NOT NULL REFERENCES users,
    store_id VARCHAR,
    basket_id VARCHAR NOT NULL,
    product_id VARCHAR NOT NULL,
    quantity DOUBLE NOT NULL,
    sales_value DOUBLE NOT NULL,
    retail_disc DOUBLE,
    coupon_disc DOUBLE,
    coupon_match_disc DOUBLE,
    week BIGINT,
    transaction_timestamp TIMESTAMP(6) NOT NULL
)
