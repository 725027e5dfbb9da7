-- one row per user_id: the last events in order
SELECT
    e.user_id,
    last_events(last_events_max(), e.ts, e.event_key, e.event_type, e.item_id, i.category, CAST(e.price AS DOUBLE), e.dwell_ms)
        AS recent
FROM user_event e LEFT JOIN item_category i ON e.item_id = i.item_id
GROUP BY e.user_id
