-- one row per line; a brand is used as the item; exact repeats are real clicks, so there is no event_id
WITH dated AS (
    SELECT
        user_id, brand_id, type, _file, _dt,
        -- `6-4` is the 4th of June; the file has no year and no time: 2014, midnight.
        CASE WHEN regexp_like(visit_datetime, '^[0-9]{1,2}-[0-9]{1,2}$') THEN concat(
            '2014-', lpad(split_part(visit_datetime, '-', 1), 2, '0'),
            '-', lpad(split_part(visit_datetime, '-', 2), 2, '0')
        ) END AS visited_on
    FROM raw_events
)
SELECT
    CAST(NULL AS VARCHAR) AS event_id,
    user_id,
    CAST(NULL AS VARCHAR) AS session_id,
    TRY_CAST(visited_on AS TIMESTAMP(6)) AS ts,
    CAST(NULL AS TIMESTAMP(6)) AS arrived_at,
    CASE type
        WHEN '0' THEN 'click'
        WHEN '1' THEN 'purchase'
        WHEN '2' THEN 'favorite'
        WHEN '3' THEN 'cart'
    END AS event_type,
    brand_id AS item_id,
    CAST(NULL AS VARCHAR) AS query,
    CAST(NULL AS BIGINT) AS dwell_ms,
    CAST(NULL AS BIGINT) AS quantity,
    CAST(NULL AS DOUBLE) AS price,
    CAST(NULL AS VARCHAR) AS currency,
    CAST(NULL AS BIGINT) AS rating,
    CAST(NULL AS VARCHAR) AS text,
    _file,
    _dt
FROM dated
