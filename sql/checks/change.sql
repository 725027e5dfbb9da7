-- check (stops the night): one row if the mean purchase probability moved too far from the night before
WITH today AS (
    SELECT avg(p_purchase) AS mean FROM intent
),
before AS (
    SELECT avg(p_purchase) AS mean FROM previous_intent
)
SELECT
    'mean of intent.p_purchase' AS subject,
    concat('within ', change_share_max * 100, ' % of the night before, ', round(before.mean, 6)) AS expected,
    CAST(round(today.mean, 6) AS VARCHAR) AS got
FROM today CROSS JOIN before CROSS JOIN check_settings
WHERE before.mean > 0 AND abs(today.mean - before.mean) > change_share_max * before.mean
