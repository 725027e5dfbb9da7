-- one row per row of a raw file below users/: the columns that a file may have (NOT NULL: must have)
CREATE TABLE raw_users (
    user_id VARCHAR NOT NULL,
    canonical_user_id VARCHAR,
    signed_up_at TIMESTAMP(6),
    country VARCHAR,
    consent BOOLEAN,
    excluded BOOLEAN
)
