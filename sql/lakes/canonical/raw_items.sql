-- one row per row of a raw file below items/: the columns that a file may have (NOT NULL: must have)
CREATE TABLE raw_items (
    item_id VARCHAR NOT NULL,
    title VARCHAR,
    category VARCHAR,
    brand VARCHAR,
    price DOUBLE,
    image_vector ARRAY<REAL>,
    video_vector ARRAY<REAL>,
    video_frames ARRAY<ARRAY<REAL>>,
    image BYTEA
)
