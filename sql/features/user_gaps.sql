-- one row per user_id with at least two purchase days: days between them, mean and standard deviation
WITH purchase_days AS (
    SELECT
        user_id,
        CAST(event_day - lag(event_day) OVER (PARTITION BY user_id ORDER BY event_day) AS BIGINT) AS gap_days
    FROM user_day
    WHERE purchases > 0
),
-- Sums of integers first: the same bits whatever the order of rows.
sums AS (
    SELECT user_id, count(gap_days) AS gaps, sum(gap_days) AS total, sum(gap_days * gap_days) AS squares
    FROM purchase_days
    GROUP BY user_id
)
SELECT
    user_id,
    CAST(total AS DOUBLE) / gaps AS gap_days_mean,
    sqrt(CAST(squares * gaps - total * total AS DOUBLE)) / gaps AS gap_days_spread
FROM sums
WHERE gaps > 0
