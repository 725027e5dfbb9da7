-- one row per good event of the unit; event_key breaks ties of time among events without an event_id
-- Files are sorted by user_bucket, so that a part of the users (engine.user_parts) and training's sample are a part of each file.
-- What needs the events of a user in order sorts them itself.
SELECT
    user_bucket(user_id) AS user_bucket, event_id, user_id, session_id, ts, event_type, item_id, query, dwell_ms, rating,
    text, event_day, arrival_day,
    -- A purchase without a quantity is one unit; a negative quantity is a return.
    CASE WHEN event_type = 'purchase' THEN coalesce(quantity, 1) END AS quantity,
    CAST(price AS DECIMAL(18, 4)) AS price,
    CASE WHEN price IS NOT NULL THEN nullif(currency, '') END AS currency,
    -- Price times quantity. A price that four decimals cannot hold is multiplied before it is rounded.
    CASE
        WHEN event_type <> 'purchase' THEN NULL
        WHEN CAST(CAST(price AS DECIMAL(18, 4)) AS DOUBLE) = price
            THEN CAST(coalesce(quantity, 1) AS DECIMAL(14, 0)) * CAST(price AS DECIMAL(18, 4))
        ELSE CAST(coalesce(quantity, 1) * price AS DECIMAL(33, 4))
    END AS amount,
    CASE
        WHEN event_id IS NULL
            THEN concat_ws('|', event_type, item_id, query, CAST(price AS VARCHAR), CAST(quantity AS VARCHAR))
    END AS event_key
FROM checked_events
WHERE reason IS NULL
