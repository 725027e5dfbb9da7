-- one row per user_id: how far the last day exceeds what the user's past and all users' rates predict
-- For each kind of event: the Poisson deviance of the last day's count above its expectation (McCullagh and Nelder,
-- "Generalized Linear Models", 2nd ed., 2.3). The expectation is the user's mean over the active days among the 27 before,
-- shrunk towards the mean of all users with the weight of seven days (a gamma prior). The score is the root of the sum: near
-- zero on ordinary days, and on the scale of standard deviations. Means are over active days, so that a visit alone is no
-- anomaly, and over the days before the last, so that a rush of many users does not make itself look ordinary.
WITH active AS (
    SELECT
        user_id, views_1d, clicks_1d, searches_1d, favorites_1d, carts_1d, purchases_1d, reviews_1d,
        views_28d, clicks_28d, searches_28d, favorites_28d, carts_28d, purchases_28d, reviews_28d,
        active_days_28d - CASE WHEN events_1d > 0 THEN 1 ELSE 0 END AS days
    FROM user_features
),
kinds AS (
    SELECT
        user_id, days, 'view' AS kind, views_1d + clicks_1d AS last_day,
        views_28d + clicks_28d - views_1d - clicks_1d AS before
    FROM active
    UNION ALL SELECT user_id, days, 'search', searches_1d, searches_28d - searches_1d FROM active
    UNION ALL SELECT user_id, days, 'favorite', favorites_1d, favorites_28d - favorites_1d FROM active
    UNION ALL SELECT user_id, days, 'cart', carts_1d, carts_28d - carts_1d FROM active
    UNION ALL SELECT user_id, days, 'purchase', purchases_1d, purchases_28d - purchases_1d FROM active
    UNION ALL SELECT user_id, days, 'review', reviews_1d, reviews_28d - reviews_1d FROM active
),
all_users AS (
    SELECT kind, CAST(sum(before) + 1 AS DOUBLE) / (sum(days) + 1) AS rate FROM kinds GROUP BY kind
),
expected AS (
    SELECT
        kinds.user_id,
        CAST(kinds.last_day AS DOUBLE) AS last_day,
        (kinds.before + 7.0 * all_users.rate) / (kinds.days + 7.0) AS expectation
    FROM kinds JOIN all_users ON kinds.kind = all_users.kind
),
deviance AS (
    SELECT
        user_id,
        CASE WHEN last_day > expectation
            THEN 2.0 * (last_day * ln(last_day / expectation) - (last_day - expectation)) ELSE 0.0 END AS excess
    FROM expected
)
SELECT user_id, sqrt(sum(excess)) AS anomaly_score FROM deviance GROUP BY user_id
