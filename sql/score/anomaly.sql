-- one row per user_id: how unlike everybody's, and the user's own past, the last day was
-- For each kind of event: the Poisson deviance of the last day's count above its expectation (McCullagh and Nelder,
-- "Generalized Linear Models", 2nd ed., 2.3), where the expectation is the user's own daily mean of the 27 days before,
-- shrunk to everybody's with the weight of seven days (a gamma prior). The score is the root of the sum: near zero on
-- ordinary days, and on the scale of standard deviations.
WITH kinds AS (
    SELECT user_id, 'view' AS kind, views_1d + clicks_1d AS last_day, views_28d + clicks_28d - views_1d - clicks_1d AS before
    FROM user_features
    UNION ALL SELECT user_id, 'search', searches_1d, searches_28d - searches_1d FROM user_features
    UNION ALL SELECT user_id, 'favorite', favorites_1d, favorites_28d - favorites_1d FROM user_features
    UNION ALL SELECT user_id, 'cart', carts_1d, carts_28d - carts_1d FROM user_features
    UNION ALL SELECT user_id, 'purchase', purchases_1d, purchases_28d - purchases_1d FROM user_features
    UNION ALL SELECT user_id, 'review', reviews_1d, reviews_28d - reviews_1d FROM user_features
),
everybody AS (
    -- Of a day on which the user came at all, so that a visit alone is no anomaly.
    SELECT kind, CAST(sum(last_day) + 1 AS DOUBLE) / (count(*) FILTER (WHERE last_day > 0) + 1) AS rate
    FROM kinds GROUP BY kind
),
expected AS (
    SELECT
        k.user_id,
        CAST(k.last_day AS DOUBLE) AS last_day,
        (k.before + 7.0 * e.rate) / (27.0 + 7.0) + e.rate AS expectation
    FROM kinds k JOIN everybody e ON k.kind = e.kind
),
deviance AS (
    SELECT
        user_id,
        CASE WHEN last_day > expectation
            THEN 2.0 * (last_day * ln(last_day / expectation) - (last_day - expectation)) ELSE 0.0 END AS excess
    FROM expected
)
SELECT user_id, sqrt(sum(excess)) AS anomaly_score FROM deviance GROUP BY user_id
