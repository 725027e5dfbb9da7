-- one row per scored user_id: the model's scores, the taste vector, the items of the last events and the anomaly score
-- The engine holds a join's first table in memory and streams the second, so the small one comes first. Its key has its own
-- name: DataFusion 55.2, when it moves struct fields down, takes a column that both sides have from the first side.
WITH scored AS (
    SELECT
        user_id, events_lifetime, last_at, score_intents(features) AS scores, latest_items(features) AS latest_items
    FROM model_input
),
anomalies AS (
    SELECT user_id AS anomaly_user_id, anomaly_score FROM anomaly
)
SELECT
    scored.user_id,
    scored.scores['p_view'] AS p_view,
    scored.scores['p_search'] AS p_search,
    scored.scores['p_favorite'] AS p_favorite,
    scored.scores['p_cart'] AS p_cart,
    scored.scores['p_purchase'] AS p_purchase,
    scored.scores['p_review'] AS p_review,
    scored.scores['p_churn'] AS p_churn,
    scored.scores['expected_units'] AS expected_units,
    scored.scores['expected_spend'] AS expected_spend,
    scored.scores['taste'] AS taste,
    scored.latest_items,
    scored.scores['model_version'] AS model_version,
    anomalies.anomaly_score,
    CAST(scored.events_lifetime AS BIGINT) AS events_seen,
    scored.last_at AS last_seen_at
FROM anomalies RIGHT JOIN scored ON scored.user_id = anomalies.anomaly_user_id
