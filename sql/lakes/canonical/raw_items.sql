-- raw columns of the files below items/: a file must have the NOT NULL ones and may have the others
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
