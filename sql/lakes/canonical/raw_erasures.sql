-- one row per row of a raw file below erasures/: the columns that a file may have (NOT NULL: must have)
CREATE TABLE raw_erasures (
    user_id VARCHAR NOT NULL,
    requested_at TIMESTAMP(6)
)
