-- one row per user_id that asked to be forgotten
SELECT user_id, requested_at, _file FROM raw_erasures
