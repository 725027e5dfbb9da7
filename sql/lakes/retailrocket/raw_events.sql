-- one row per line of events.csv (Retail Rocket); a copy has a column `datetime` besides, which says the same again
CREATE TABLE raw_events (
    "timestamp" BIGINT NOT NULL,
    visitorid VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    itemid VARCHAR NOT NULL,
    transactionid VARCHAR
)
