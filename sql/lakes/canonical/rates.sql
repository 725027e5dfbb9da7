-- one row per currency and day: the price of one unit of it in lake.currency
SELECT currency, day, rate, _file FROM raw_rates
