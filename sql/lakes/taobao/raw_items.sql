-- raw columns of what import_items.sql gathered: item_id and category_id, and how many lines have both
CREATE TABLE raw_items (
    item_id VARCHAR NOT NULL,
    category_id VARCHAR,
    lines BIGINT NOT NULL
)
