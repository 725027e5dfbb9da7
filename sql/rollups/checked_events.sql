-- one row per raw event of the unit, with its local days and, if it is bad, the reason
-- Of several good rows of an id, the first to arrive counts, so that a night of an earlier date still sees it; a row without
-- arrived_at arrived when it happened. Only rows of repeated ids are sorted: they are few.
WITH ranked AS (
    SELECT
        judged_events.*,
        repeated_ids.is_known,
        row_number() OVER (
            PARTITION BY judged_events.event_id, judged_events.event_day
            ORDER BY arrival_day, coalesce(arrived_at, ts), ts, event_type, item_id, user_id, _file
        ) AS occurrence
    FROM repeated_ids
        JOIN judged_events
            ON repeated_ids.event_id = judged_events.event_id AND repeated_ids.event_day = judged_events.event_day
    WHERE judged_events.row_reason IS NULL
)
SELECT judged_events.* EXCLUDE (_dt, row_reason), row_reason AS reason
FROM repeated_ids
    RIGHT ANTI JOIN judged_events
        ON repeated_ids.event_id = judged_events.event_id AND repeated_ids.event_day = judged_events.event_day
            AND judged_events.row_reason IS NULL
UNION ALL
SELECT
    ranked.* EXCLUDE (_dt, row_reason, is_known, occurrence),
    CASE WHEN is_known OR occurrence > 1 THEN 'repeated_event_id' END AS reason
FROM ranked
