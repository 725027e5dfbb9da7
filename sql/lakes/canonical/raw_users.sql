-- raw columns of the files below users/: a file must have the NOT NULL ones and may have the others
CREATE TABLE raw_users (
    user_id VARCHAR NOT NULL,
    canonical_user_id VARCHAR,
    signed_up_at TIMESTAMP(6),
    country VARCHAR,
    consent BOOLEAN,
    excluded BOOLEAN
)
