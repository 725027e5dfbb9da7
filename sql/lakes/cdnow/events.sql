-- one row per line: a purchase of CDs, which are all one item; several on a day stay separate
WITH dated AS (
    SELECT
        customer_id, number_of_cds, dollar_value, _file, _dt,
        -- `19970101`, without a time: midnight.
        CASE WHEN regexp_like("date", '^[0-9]{8}$')
            THEN concat_ws('-', substr("date", 1, 4), substr("date", 5, 2), substr("date", 7, 2)) END AS bought_on
    FROM raw_events
)
SELECT
    CAST(NULL AS VARCHAR) AS event_id,
    customer_id AS user_id,
    CAST(NULL AS VARCHAR) AS session_id,
    TRY_CAST(bought_on AS TIMESTAMP(6)) AS ts,
    CAST(NULL AS TIMESTAMP(6)) AS arrived_at,
    'purchase' AS event_type,
    'cd' AS item_id,
    CAST(NULL AS VARCHAR) AS query,
    CAST(NULL AS BIGINT) AS dwell_ms,
    number_of_cds AS quantity,
    CASE WHEN number_of_cds > 0 THEN dollar_value / number_of_cds END AS price,
    'USD' AS currency,
    CAST(NULL AS BIGINT) AS rating,
    CAST(NULL AS VARCHAR) AS text,
    _file,
    _dt
FROM dated
