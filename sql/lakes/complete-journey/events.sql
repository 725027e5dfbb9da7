-- one row per order line: a purchase; a unit's price is the line's value divided by its quantity, null if that is 0
SELECT
    CAST(NULL AS VARCHAR) AS event_id,
    household_id AS user_id,
    basket_id AS session_id,
    transaction_timestamp AS ts,
    CAST(NULL AS TIMESTAMP(6)) AS arrived_at,
    'purchase' AS event_type,
    product_id AS item_id,
    CAST(NULL AS VARCHAR) AS query,
    CAST(NULL AS BIGINT) AS dwell_ms,
    CAST(round(quantity) AS BIGINT) AS quantity,
    CASE WHEN quantity > 0 THEN sales_value / quantity END AS price,
    'USD' AS currency,
    CAST(NULL AS BIGINT) AS rating,
    CAST(NULL AS VARCHAR) AS text,
    _file,
    _dt
FROM raw_events
