-- raw columns of a month's file such as 2019-Oct.csv (REES46, Open CDP, multi category store)
CREATE TABLE raw_events (
    event_time VARCHAR NOT NULL,
    event_type VARCHAR NOT NULL,
    product_id VARCHAR NOT NULL,
    category_id VARCHAR,
    category_code VARCHAR,
    brand VARCHAR,
    price DOUBLE,
    user_id VARCHAR NOT NULL,
    user_session VARCHAR
)
