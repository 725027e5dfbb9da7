-- one row per item_id and category_id of the log, with how many lines say so
CREATE TABLE raw_items (
    item_id VARCHAR NOT NULL,
    category_id VARCHAR,
    lines BIGINT NOT NULL
)
