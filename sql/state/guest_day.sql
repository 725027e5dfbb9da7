-- one row per day of a guest before the run date, under the login that the guest became, as that night knew it
-- Has every count of rollups/unit_user_day.sql. A night computes these rows once for all parts: a guest's own bucket does not
-- determine the login's.
SELECT
    stitched.canonical_user_id AS user_id,
    unit_user_day.* EXCLUDE (user_bucket, user_id, arrival_day, _file, _dt)
FROM stitched JOIN unit_user_day ON unit_user_day.user_id = stitched.user_id
WHERE unit_user_day.event_day < run_date() AND unit_user_day.arrival_day < run_date()
