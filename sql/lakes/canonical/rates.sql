-- one row per currency and day: the price of one unit of it in lake.currency
SELECT
    currency, -- currency, ISO 4217
    day, -- first day on which the rate counts
    rate, -- price of one unit of the currency in lake.currency
    _file -- file of the row
FROM raw_rates
