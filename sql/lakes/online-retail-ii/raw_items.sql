-- raw columns of what import_items.sql gathered: StockCode, Description and Price, and how many order lines have them
CREATE TABLE raw_items (
    "StockCode" VARCHAR NOT NULL,
    "Description" VARCHAR,
    "Price" DOUBLE,
    lines BIGINT NOT NULL
)
