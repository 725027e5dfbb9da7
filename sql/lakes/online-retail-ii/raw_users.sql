-- one row per customer and country, with how many order lines name both
CREATE TABLE raw_users (
    "Customer ID" VARCHAR NOT NULL,
    "Country" VARCHAR,
    lines BIGINT NOT NULL
)
