-- one row per raw event, with its local day and the local day of its arrival
SELECT
    *,
    local_day(ts) AS event_day,
    CASE arrival_kind()
        WHEN 'column' THEN coalesce(local_day(arrived_at), local_day(ts))
        WHEN 'ingest_date' THEN coalesce(_dt, local_day(ts))
        ELSE local_day(ts)
    END AS arrival_day
FROM events
