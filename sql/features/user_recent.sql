-- one row per user_id: the last events in order
-- The engine holds a join's first table in memory and streams the second, so the small one comes first.
SELECT
    events.user_id,
    last_events(
        last_events_max(), events.ts, events.event_key, events.event_type, events.item_id, item_contents.category,
        CAST(events.price AS DOUBLE), events.dwell_ms,
        -- An event's own text takes precedence over the title of its item.
        coalesce(content_key(events.query), content_key(events.text), item_contents.text_key),
        item_contents.image_key, item_contents.video_key
    ) AS recent
FROM item_contents RIGHT JOIN user_event AS events ON events.item_id = item_contents.item_id
GROUP BY events.user_id
