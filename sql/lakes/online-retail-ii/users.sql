-- one row per user_id: its most frequent country
-- The set has no date of registration: its first order stands for it. Otherwise all customers would be known from the first day
-- on, and training would learn that those without an order are about to come.
WITH named AS (
    SELECT
        regexp_replace("Customer ID", '\.0$', '') AS user_id,
        "Country" AS country,
        sum(lines) AS lines,
        min(first_invoiced_at) AS first_invoiced_at
    FROM raw_users
    GROUP BY regexp_replace("Customer ID", '\.0$', ''), "Country"
),
customers AS (
    SELECT
        user_id,
        first_value(country ORDER BY lines DESC, country) AS country,
        min(first_invoiced_at) AS first_invoiced_at
    FROM named
    GROUP BY user_id
)
SELECT
    user_id,
    CAST(NULL AS VARCHAR) AS canonical_user_id,
    -- UK local time, as in events.sql.
    CAST(
        coalesce(
            arrow_try_cast(first_invoiced_at, 'Timestamp(Microsecond, Some("Europe/London"))'),
            arrow_try_cast(first_invoiced_at - INTERVAL '1 hour', 'Timestamp(Microsecond, Some("Europe/London"))')
                + INTERVAL '1 hour'
        ) AS TIMESTAMP(6)
    ) AS signed_up_at,
    country,
    CAST(NULL AS BOOLEAN) AS consent,
    CAST(NULL AS BOOLEAN) AS excluded
FROM customers
