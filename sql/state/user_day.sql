-- one row per user_id and event_day before the run date, as that night knew it; guests count for the login they became
-- Has the counts of features that look at whole days (active days, days between purchases). Sums over days need no merging:
-- they read user_day_rows, which has every count.
SELECT
    user_id,
    event_day,
    sum(events) AS events,
    sum(purchases) AS purchases
FROM user_day_rows
GROUP BY user_id, event_day
