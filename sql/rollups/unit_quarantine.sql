-- one row per bad event of the unit; of a user_id only the first two characters are kept, of an erased person's event nothing
SELECT
    _file AS source_file,
    reason,
    CASE
        WHEN reason = 'out_of_range' THEN column_out_of_range
        WHEN reason = 'time_too_early' AND ts >= lake_first_at() THEN 'arrived_at'
    END AS column_name,
    CASE WHEN reason <> 'erased_user' THEN row_json(named_struct(
        'event_id', event_id,
        'user_id', concat(substr(user_id, 1, 2), '…'),
        -- Times outside the years 1 to 9999 stay numbers of microseconds: text cannot represent all of them.
        'ts', CASE WHEN CAST(ts AS BIGINT) BETWEEN -62135596800000000 AND 253402300799999999 THEN CAST(ts AS VARCHAR)
            ELSE CAST(CAST(ts AS BIGINT) AS VARCHAR) END,
        'event_type', event_type,
        'item_id', item_id,
        'quantity', quantity,
        'price', price,
        'currency', nullif(currency, '')
    )) END AS row_json,
    event_day,
    arrival_day
FROM checked_events
WHERE reason IS NOT NULL
