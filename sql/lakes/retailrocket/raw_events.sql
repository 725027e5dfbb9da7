-- raw columns of events.csv (Retail Rocket); some copies have a redundant column `datetime` too
CREATE TABLE raw_events (
    "timestamp" BIGINT NOT NULL,
    visitorid VARCHAR NOT NULL REFERENCES users,
    event VARCHAR NOT NULL,
    itemid VARCHAR NOT NULL,
    transactionid VARCHAR
)
