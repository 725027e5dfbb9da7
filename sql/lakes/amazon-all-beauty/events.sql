-- one row per review; times are days; a review repeated for an item's variants stays repeated
SELECT
    CAST(NULL AS VARCHAR) AS event_id,
    "reviewerID" AS user_id,
    CAST(NULL AS VARCHAR) AS session_id,
    CASE WHEN "unixReviewTime" BETWEEN 631152000 AND 4102444800
        THEN TRY_CAST(to_timestamp_seconds("unixReviewTime") AS TIMESTAMP(6)) END AS ts,
    CAST(NULL AS TIMESTAMP(6)) AS arrived_at,
    'review' AS event_type,
    asin AS item_id,
    CAST(NULL AS VARCHAR) AS query,
    CAST(NULL AS BIGINT) AS dwell_ms,
    CAST(NULL AS BIGINT) AS quantity,
    CAST(NULL AS DOUBLE) AS price,
    CAST(NULL AS VARCHAR) AS currency,
    CAST(overall AS BIGINT) AS rating,
    "reviewText" AS text,
    _file,
    _dt
FROM raw_events
