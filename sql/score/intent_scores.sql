-- one row per scored user_id: the model's scores, the taste vector and the anomaly score
-- The engine holds a join's first table in memory and streams the second: the small one stands first. Its key has a
-- name of its own: DataFusion 55.2 finds a column that both sides have on the first side when it moves struct fields down.
WITH scored AS (
    SELECT user_id, events_lifetime, last_at, score_intents(features) AS scores FROM model_input
),
odd AS (
    SELECT user_id AS odd_user_id, anomaly_score FROM anomaly
)
SELECT
    s.user_id,
    s.scores['p_view'] AS p_view,
    s.scores['p_search'] AS p_search,
    s.scores['p_favorite'] AS p_favorite,
    s.scores['p_cart'] AS p_cart,
    s.scores['p_purchase'] AS p_purchase,
    s.scores['p_review'] AS p_review,
    s.scores['p_churn'] AS p_churn,
    s.scores['expected_units'] AS expected_units,
    s.scores['expected_spend'] AS expected_spend,
    s.scores['taste'] AS taste,
    s.scores['model_version'] AS model_version,
    o.anomaly_score,
    CAST(s.events_lifetime AS BIGINT) AS events_seen,
    s.last_at AS last_seen_at
FROM odd o RIGHT JOIN scored s ON s.user_id = o.odd_user_id
