-- raw columns of the files below erasures/: a file must have the NOT NULL ones and may have the others
CREATE TABLE raw_erasures (
    user_id VARCHAR NOT NULL,
    requested_at TIMESTAMP(6)
)
