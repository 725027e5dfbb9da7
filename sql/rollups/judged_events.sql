-- one row per raw event of the unit, with its local days and, if the row alone shows that it is bad, the reason
-- The reasons are declared in src/features/quarantine.rs, each with its meaning; a test compares them with this file and
-- checked_events.sql.
WITH named AS (
    SELECT
        -- A blank id is no id.
        non_blank(event_id) AS event_id,
        non_blank(user_id) AS user_id,
        non_blank(session_id) AS session_id,
        ts, arrived_at, event_type,
        non_blank(item_id) AS item_id,
        CASE WHEN masks_texts() THEN mask_text(query) ELSE query END AS query,
        dwell_ms, quantity, price,
        coalesce(upper(non_blank(currency)), lake_currency()) AS currency,
        rating,
        CASE WHEN masks_texts() THEN mask_text(text) ELSE text END AS text,
        _file, _dt, event_day, arrival_day
    FROM dated_events
),
-- A price in another currency is converted by its rate of that day; without one the row keeps its currency.
-- A right join, because the engine hashes the left side, and the rates are few.
converted AS (
    SELECT
        named.* EXCLUDE (price, currency),
        CASE WHEN daily_rates.rate IS NULL THEN named.price ELSE named.price * daily_rates.rate END AS price,
        CASE WHEN daily_rates.rate IS NULL THEN named.currency ELSE lake_currency() END AS currency
    FROM daily_rates
        RIGHT JOIN named ON daily_rates.currency = named.currency AND daily_rates.day = named.event_day
),
placed AS (
    SELECT
        *,
        -- Within these bounds no sum of a lake overflows.
        CASE
            WHEN price >= price_max() AND price < CAST('Infinity' AS DOUBLE) THEN 'price'
            WHEN quantity NOT BETWEEN -2147483648 AND 2147483647 THEN 'quantity'
            WHEN dwell_ms NOT BETWEEN 0 AND 1000000000000 THEN 'dwell_ms'
            WHEN rating NOT BETWEEN -128 AND 127 THEN 'rating'
        END AS column_out_of_range
    FROM converted
)
SELECT
    *,
    CASE
        -- Of an erased person nothing but the number of rows is kept.
        WHEN is_erased(user_id) THEN 'erased_user'
        WHEN ts IS NULL THEN 'null_time'
        WHEN ts < lake_first_at() THEN 'time_too_early'
        WHEN event_type IS NULL OR event_type NOT IN
            ('view', 'click', 'search', 'favorite', 'cart', 'remove_from_cart', 'purchase', 'review')
            THEN 'unknown_event_type'
        WHEN ts > read_at() + time_tolerance() THEN 'time_in_future'
        WHEN arrival_kind() = 'column' AND arrived_at < lake_first_at() THEN 'time_too_early'
        WHEN arrival_kind() = 'column' AND arrived_at > read_at() + time_tolerance() THEN 'arrival_in_future'
        -- The first comparison is cheap and leaves few rows for the arithmetic of the others.
        WHEN partition_kind() = 'event_date_utc' AND CAST(ts AS DATE) <> _dt AND
            (CAST(ts - time_tolerance() AS DATE) > _dt OR CAST(ts + time_tolerance() AS DATE) < _dt)
            THEN 'time_outside_partition'
        WHEN partition_kind() = 'event_date_local' AND event_day <> _dt AND
            (local_day(ts - time_tolerance()) > _dt OR local_day(ts + time_tolerance()) < _dt)
            THEN 'time_outside_partition'
        WHEN partition_kind() = 'ingest_date' AND event_day > _dt AND local_day(ts - time_tolerance()) > _dt
            THEN 'time_outside_partition'
        WHEN isnan(price) THEN 'nan_price'
        WHEN price < 0 THEN 'negative_price'
        -- One such price among a user's last events would turn all scores of that user into NaN.
        WHEN price = CAST('Infinity' AS DOUBLE) THEN 'infinite_price'
        WHEN column_out_of_range IS NOT NULL THEN 'out_of_range'
        WHEN lake_currency() <> '' AND price IS NOT NULL AND currency <> lake_currency() THEN 'other_currency'
    END AS row_reason
FROM placed
