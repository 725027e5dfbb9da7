-- one row per currency but the lake's and local day: the newest rate on or before that day
WITH known AS (
    SELECT DISTINCT upper(currency) AS currency, day, rate
    FROM rates
    WHERE lake_currency() <> '' AND upper(currency) <> lake_currency()
),
-- Days as whole numbers: each rate holds until the day before the next one, the newest one until the last day of an event.
spans AS (
    SELECT
        currency,
        rate,
        greatest(CAST(day AS INT), CAST(local_day(lake_first_at()) AS INT)) AS first_day,
        coalesce(
            CAST(lead(day) OVER (PARTITION BY currency ORDER BY day) AS INT) - 1,
            CAST(local_day(read_at() + time_tolerance()) AS INT)
        ) AS last_day
    FROM known
),
days AS (
    SELECT currency, rate, unnest(generate_series(CAST(first_day AS BIGINT), CAST(last_day AS BIGINT))) AS day_number
    FROM spans
    WHERE first_day <= last_day
)
SELECT currency, CAST(CAST(day_number AS INT) AS DATE) AS day, rate FROM days
