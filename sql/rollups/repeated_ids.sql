-- one row per event_id and local day with several good rows in the unit, or with a row in a unit built before (is_known)
-- Only ids that the lake supplies deduplicate, within a day: exact repeats without an id can be real clicks.
WITH ids AS (
    SELECT event_id, event_day, count(*) AS rows
    FROM judged_events
    WHERE row_reason IS NULL AND event_id IS NOT NULL
    GROUP BY event_id, event_day
)
SELECT ids.event_id, ids.event_day, known_event_ids.event_id IS NOT NULL AS is_known
FROM known_event_ids
    RIGHT JOIN ids ON known_event_ids.event_id = ids.event_id AND known_event_ids.event_day = ids.event_day
WHERE ids.rows > 1 OR known_event_ids.event_id IS NOT NULL
