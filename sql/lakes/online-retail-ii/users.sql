-- one row per user_id: its most frequent country
WITH named AS (
    SELECT regexp_replace("Customer ID", '\.0$', '') AS user_id, "Country" AS country, sum(lines) AS lines
    FROM raw_users
    GROUP BY regexp_replace("Customer ID", '\.0$', ''), "Country"
)
SELECT
    user_id,
    CAST(NULL AS VARCHAR) AS canonical_user_id,
    CAST(NULL AS TIMESTAMP(6)) AS signed_up_at,
    first_value(country ORDER BY lines DESC, country) AS country,
    CAST(NULL AS BOOLEAN) AS consent,
    CAST(NULL AS BOOLEAN) AS excluded
FROM named
GROUP BY user_id
