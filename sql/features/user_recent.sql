-- one row per user_id: the last events in order
-- The engine holds a join's first table in memory and streams the second: the small one stands first.
SELECT
    e.user_id,
    last_events(
        last_events_max(), e.ts, e.event_key, e.event_type, e.item_id, i.category, CAST(e.price AS DOUBLE), e.dwell_ms,
        -- What the event itself says comes before the title of its item.
        coalesce(content_key(e.query), content_key(e.text), i.text_key), i.image_key, i.video_key
    ) AS recent
FROM item_contents i RIGHT JOIN user_event e ON e.item_id = i.item_id
GROUP BY e.user_id
