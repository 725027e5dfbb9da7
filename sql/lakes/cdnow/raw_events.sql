-- raw columns of CDNOW_master.txt (four fields a line) or CDNOW_sample.txt (five, with the sample's own id)
CREATE TABLE raw_events (
    customer_id VARCHAR NOT NULL REFERENCES users,
    sample_id VARCHAR,
    "date" VARCHAR NOT NULL,
    number_of_cds BIGINT NOT NULL,
    dollar_value DOUBLE NOT NULL
)
