-- one row per user_id that asked to be forgotten
SELECT
    user_id, -- who is to be forgotten
    requested_at, -- time of the request, UTC
    _file -- file of the row
FROM raw_erasures
