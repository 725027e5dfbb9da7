-- raw columns of the order lines (Chen, UCI data set 502, "Online Retail II")
CREATE TABLE raw_events (
    "Invoice" VARCHAR NOT NULL,
    "StockCode" VARCHAR NOT NULL,
    "Description" VARCHAR,
    "Quantity" BIGINT NOT NULL,
    "InvoiceDate" TIMESTAMP(6) NOT NULL,
    "Price" DOUBLE NOT NULL,
    "Customer ID" VARCHAR REFERENCES users,
    "Country" VARCHAR
)
