-- raw columns of the reviews, one JSON object a line (Ni, Li, McAuley: Amazon review data 2018, All Beauty)
CREATE TABLE raw_events (
    overall DOUBLE NOT NULL,
    verified BOOLEAN,
    "reviewerID" VARCHAR NOT NULL REFERENCES users,
    asin VARCHAR NOT NULL,
    style VARCHAR,
    "reviewText" VARCHAR,
    summary VARCHAR,
    "unixReviewTime" BIGINT NOT NULL,
    vote VARCHAR
)
