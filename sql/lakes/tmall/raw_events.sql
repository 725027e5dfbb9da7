-- raw columns of t_alibaba_data.csv (Alibaba's competition of 2014)
CREATE TABLE raw_events (
    user_id VARCHAR NOT NULL,
    brand_id VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    visit_datetime VARCHAR NOT NULL
)
