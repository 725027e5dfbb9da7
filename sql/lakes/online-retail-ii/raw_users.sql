-- raw columns of what import_users.sql gathered: customer and country, how many order lines have both, and when the first was invoiced
CREATE TABLE raw_users (
    "Customer ID" VARCHAR NOT NULL REFERENCES users,
    "Country" VARCHAR,
    lines BIGINT NOT NULL,
    first_invoiced_at TIMESTAMP(6)
)
