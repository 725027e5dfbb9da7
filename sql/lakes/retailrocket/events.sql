-- one row per line; `timestamp` counts milliseconds; outside 1990..2100 the time is null
SELECT
    CAST(NULL AS VARCHAR) AS event_id,
    visitorid AS user_id,
    CAST(NULL AS VARCHAR) AS session_id,
    CASE WHEN "timestamp" BETWEEN 631152000000 AND 4102444800000
        THEN TRY_CAST(to_timestamp_millis("timestamp") AS TIMESTAMP(6)) END AS ts,
    CAST(NULL AS TIMESTAMP(6)) AS arrived_at,
    CASE event
        WHEN 'view' THEN 'view'
        WHEN 'addtocart' THEN 'cart'
        WHEN 'transaction' THEN 'purchase'
    END AS event_type,
    itemid AS item_id,
    CAST(NULL AS VARCHAR) AS query,
    CAST(NULL AS BIGINT) AS dwell_ms,
    CAST(NULL AS BIGINT) AS quantity,
    CAST(NULL AS DOUBLE) AS price,
    CAST(NULL AS VARCHAR) AS currency,
    CAST(NULL AS BIGINT) AS rating,
    CAST(NULL AS VARCHAR) AS text,
    _file,
    _dt
FROM raw_events
