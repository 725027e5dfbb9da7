-- one row per user_id: the last events in order, and distinct sessions, items and categories
-- An event without a session id counts as one session an hour.
SELECT
    e.user_id,
    last_events(last_events_max(), e.ts, e.event_key, e.event_type, e.item_id, i.category, CAST(e.price AS DOUBLE), e.dwell_ms)
        AS recent,
    count(DISTINCT CASE WHEN e.event_day >= run_date() - 28
        THEN coalesce(e.session_id, CAST(date_trunc('hour', e.ts) AS VARCHAR)) END) AS sessions_28d,
    count(DISTINCT CASE WHEN e.event_day >= run_date() - 28 THEN e.item_id END) AS items_28d,
    count(DISTINCT CASE WHEN e.event_day >= run_date() - 28 THEN i.category END) AS categories_28d,
    count(DISTINCT CASE WHEN e.event_day >= run_date() - 7
        THEN coalesce(e.session_id, CAST(date_trunc('hour', e.ts) AS VARCHAR)) END) AS sessions_7d,
    count(DISTINCT CASE WHEN e.event_day >= run_date() - 7 THEN e.item_id END) AS items_7d,
    count(DISTINCT CASE WHEN e.event_day >= run_date() - 7 THEN i.category END) AS categories_7d
FROM user_event e LEFT JOIN item_category i ON e.item_id = i.item_id
GROUP BY e.user_id
