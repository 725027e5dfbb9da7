-- one row per StockCode, Description and Price, with how many order lines bear them
CREATE TABLE raw_items (
    "StockCode" VARCHAR NOT NULL,
    "Description" VARCHAR,
    "Price" DOUBLE,
    lines BIGINT NOT NULL
)
