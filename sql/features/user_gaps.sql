-- one row per user_id with at least two purchase days: mean and standard deviation of the days between them
WITH purchase_days AS (
    SELECT user_id, event_day FROM user_day_rows WHERE purchases > 0 GROUP BY user_id, event_day
),
gaps AS (
    SELECT
        user_id,
        CAST(event_day - lag(event_day) OVER (PARTITION BY user_id ORDER BY event_day) AS BIGINT) AS gap_days
    FROM purchase_days
),
-- Sums of integers first, so that the order of rows does not change a bit.
sums AS (
    SELECT user_id, count(gap_days) AS gaps, sum(gap_days) AS total, sum(gap_days * gap_days) AS squares
    FROM gaps
    GROUP BY user_id
)
SELECT
    user_id,
    CAST(total AS DOUBLE) / gaps AS gap_days_mean,
    sqrt(CAST(squares * gaps - total * total AS DOUBLE)) / gaps AS gap_days_spread
FROM sums
WHERE gaps > 0
