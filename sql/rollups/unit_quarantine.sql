-- one row per bad event of the unit; of a user_id only the first two characters are kept
SELECT
    _file AS source_file,
    reason,
    row_json(named_struct(
        'event_id', event_id,
        'user_id', concat(substr(user_id, 1, 2), '…'),
        'ts', ts,
        'event_type', event_type,
        'item_id', item_id,
        'quantity', quantity,
        'price', price
    )) AS row_json
FROM checked_events
WHERE reason IS NOT NULL
