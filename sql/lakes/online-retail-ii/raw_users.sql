-- raw columns of what import_users.sql gathered: customer and country, and how many order lines have both
CREATE TABLE raw_users (
    "Customer ID" VARCHAR NOT NULL REFERENCES users,
    "Country" VARCHAR,
    lines BIGINT NOT NULL
)
