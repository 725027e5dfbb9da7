-- one or more rows per user_id and event_day before the run date, as that night knew it: late arrivals are not merged yet
-- Has every count of rollups/unit_user_day.sql, and only the users of the session's part (engine.user_parts; training takes
-- a sample). The engine holds a join's first table in memory and streams the second, so the small one comes first.
SELECT unit_user_day.* EXCLUDE (user_bucket, arrival_day, _file, _dt)
FROM stitched RIGHT ANTI JOIN unit_user_day ON unit_user_day.user_id = stitched.user_id
WHERE unit_user_day.user_bucket BETWEEN user_bucket_first() AND user_bucket_last()
    AND unit_user_day.event_day < run_date() AND unit_user_day.arrival_day < run_date()
UNION ALL
SELECT * FROM guest_day
WHERE user_bucket(user_id) BETWEEN user_bucket_first() AND user_bucket_last()
