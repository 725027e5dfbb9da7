-- raw columns of UserBehavior.csv, which has no header (Alibaba, Tianchi data set 649)
CREATE TABLE raw_events (
    user_id VARCHAR NOT NULL,
    item_id VARCHAR NOT NULL,
    category_id VARCHAR,
    behavior VARCHAR NOT NULL,
    unix_seconds BIGINT NOT NULL
)
