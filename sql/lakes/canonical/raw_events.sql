-- raw columns of the files below events/: a file must have the NOT NULL ones and may have the others
CREATE TABLE raw_events (
    ts TIMESTAMP(6) NOT NULL,
    event_type VARCHAR NOT NULL,
    user_id VARCHAR NOT NULL,
    item_id VARCHAR NOT NULL,
    event_id VARCHAR,
    session_id VARCHAR,
    arrived_at TIMESTAMP(6),
    query VARCHAR,
    dwell_ms BIGINT,
    quantity BIGINT,
    price DOUBLE,
    currency VARCHAR,
    rating BIGINT,
    text VARCHAR
)
