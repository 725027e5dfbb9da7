-- one row per raw event of the unit, with its local days and, where it is bad, the reason
WITH placed AS (
    SELECT
        event_id, user_id, session_id, ts, arrived_at, event_type, item_id, query, dwell_ms, quantity, price, rating, text,
        _file, _dt,
        local_day(ts) AS event_day,
        CASE arrival_kind()
            WHEN 'column' THEN coalesce(local_day(arrived_at), local_day(ts))
            WHEN 'ingest_date' THEN coalesce(_dt, local_day(ts))
            ELSE local_day(ts)
        END AS arrival_day
    FROM events
),
judged AS (
    SELECT
        event_id, user_id, session_id, ts, arrived_at, event_type, item_id, query, dwell_ms, quantity, price, rating, text,
        _file, event_day, arrival_day,
        CASE
            WHEN ts IS NULL THEN 'null_time'
            WHEN event_type IS NULL OR event_type NOT IN
                ('view', 'click', 'search', 'favorite', 'cart', 'remove_from_cart', 'purchase', 'review')
                THEN 'unknown_event_type'
            WHEN ts > read_at() + time_tolerance() THEN 'time_in_future'
            WHEN partition_kind() = 'event_date_utc' AND
                (CAST(ts - time_tolerance() AS DATE) > _dt OR CAST(ts + time_tolerance() AS DATE) < _dt)
                THEN 'time_outside_partition'
            WHEN partition_kind() = 'event_date_local' AND
                (local_day(ts - time_tolerance()) > _dt OR local_day(ts + time_tolerance()) < _dt)
                THEN 'time_outside_partition'
            WHEN partition_kind() = 'ingest_date' AND local_day(ts - time_tolerance()) > _dt
                THEN 'time_outside_partition'
            WHEN isnan(price) THEN 'nan_price'
            WHEN price < 0 THEN 'negative_price'
            -- One such price in a user's last events would turn all of that user's scores into NaN.
            WHEN price = CAST('Infinity' AS DOUBLE) THEN 'infinite_price'
        END AS own_reason
    FROM placed
),
-- Only ids that the lake supplies deduplicate, within a day: exact repeats without an id can be real clicks.
counted AS (
    SELECT
        event_id, user_id, session_id, ts, arrived_at, event_type, item_id, query, dwell_ms, quantity, price, rating, text,
        _file, event_day, arrival_day, own_reason,
        CASE WHEN event_id IS NULL THEN 1 ELSE row_number() OVER (
            PARTITION BY event_id, event_day
            ORDER BY own_reason NULLS FIRST, arrived_at, ts, event_type, item_id, user_id, _file
        ) END AS occurrence
    FROM judged
),
final AS (
    SELECT
        c.event_id, c.user_id, c.session_id, c.ts, c.arrived_at, c.event_type, c.item_id, c.query, c.dwell_ms,
        c.quantity, c.price, c.rating, c.text, c._file, c.event_day, c.arrival_day,
        CASE
            WHEN c.own_reason IS NOT NULL THEN c.own_reason
            WHEN c.occurrence > 1 OR k.event_id IS NOT NULL THEN 'repeated_event_id'
        END AS reason
    FROM counted c LEFT JOIN known_event_ids k ON c.event_id = k.event_id AND c.event_day = k.event_day
)
SELECT
    event_id, user_id, session_id, ts, arrived_at, event_type, item_id, query, dwell_ms, quantity, price, rating, text,
    _file, event_day, arrival_day, reason
FROM final
