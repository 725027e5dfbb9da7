-- one row per line; lines have no quantity, so a purchase is one unit
SELECT
    CAST(NULL AS VARCHAR) AS event_id,
    user_id,
    user_session AS session_id,
    -- Written as `2019-10-01 00:00:00 UTC`.
    TRY_CAST(replace(event_time, ' UTC', '') AS TIMESTAMP(6)) AS ts,
    CAST(NULL AS TIMESTAMP(6)) AS arrived_at,
    CASE WHEN event_type IN ('view', 'cart', 'remove_from_cart', 'purchase') THEN event_type END AS event_type,
    product_id AS item_id,
    CAST(NULL AS VARCHAR) AS query,
    CAST(NULL AS BIGINT) AS dwell_ms,
    CAST(NULL AS BIGINT) AS quantity,
    price,
    CAST(NULL AS VARCHAR) AS currency,
    CAST(NULL AS BIGINT) AS rating,
    CAST(NULL AS VARCHAR) AS text,
    _file,
    _dt
FROM raw_events
