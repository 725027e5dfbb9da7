-- one row per line of the log, without sessions, quantities or prices; outside 1990..2100 (a cut line) the time is null
SELECT
    CAST(NULL AS VARCHAR) AS event_id,
    user_id,
    CAST(NULL AS VARCHAR) AS session_id,
    CASE WHEN unix_seconds BETWEEN 631152000 AND 4102444800
        THEN TRY_CAST(to_timestamp_seconds(unix_seconds) AS TIMESTAMP(6)) END AS ts,
    CAST(NULL AS TIMESTAMP(6)) AS arrived_at,
    CASE behavior
        WHEN 'pv' THEN 'view'
        WHEN 'fav' THEN 'favorite'
        WHEN 'cart' THEN 'cart'
        WHEN 'buy' THEN 'purchase'
    END AS event_type,
    item_id,
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
