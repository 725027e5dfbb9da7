-- one row per order line: a purchase; a cancelled line (negative quantity) is a return; a line without customer is a guest's
WITH instants AS (
    SELECT
        "Invoice", "StockCode", "Quantity", "Price", "Customer ID", _file, _dt,
        -- UK local time. In the hour that the autumn clock repeats, the earlier instant, computed from the hour before.
        coalesce(
            arrow_try_cast("InvoiceDate", 'Timestamp(Microsecond, Some("Europe/London"))'),
            arrow_try_cast("InvoiceDate" - INTERVAL '1 hour', 'Timestamp(Microsecond, Some("Europe/London"))')
                + INTERVAL '1 hour'
        ) AS invoiced_at
    FROM raw_events
)
SELECT
    CAST(NULL AS VARCHAR) AS event_id,
    -- Some copies write customers as 13085.0.
    regexp_replace("Customer ID", '\.0$', '') AS user_id,
    "Invoice" AS session_id,
    CAST(invoiced_at AS TIMESTAMP(6)) AS ts,
    CAST(NULL AS TIMESTAMP(6)) AS arrived_at,
    'purchase' AS event_type,
    trim("StockCode") AS item_id,
    CAST(NULL AS VARCHAR) AS query,
    CAST(NULL AS BIGINT) AS dwell_ms,
    "Quantity" AS quantity,
    "Price" AS price,
    'GBP' AS currency,
    CAST(NULL AS BIGINT) AS rating,
    CAST(NULL AS VARCHAR) AS text,
    _file,
    _dt
FROM instants
