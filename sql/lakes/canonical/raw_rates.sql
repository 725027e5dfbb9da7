-- raw columns of the files below rates/: a file must have the NOT NULL ones and may have the others
CREATE TABLE raw_rates (
    currency VARCHAR NOT NULL,
    day DATE NOT NULL,
    rate DOUBLE NOT NULL
)
