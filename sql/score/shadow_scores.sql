-- one row per scored user_id: the scores of the model with which the night scores a second time; none without one
WITH scored AS (
    SELECT user_id, score_intents(features, shadow_version()) AS scores FROM model_input WHERE shadow_version() <> ''
)
SELECT
    user_id,
    scores['p_view'] AS p_view,
    scores['p_search'] AS p_search,
    scores['p_favorite'] AS p_favorite,
    scores['p_cart'] AS p_cart,
    scores['p_purchase'] AS p_purchase,
    scores['p_review'] AS p_review,
    scores['p_churn'] AS p_churn,
    scores['expected_units'] AS expected_units,
    scores['expected_spend'] AS expected_spend,
    scores['model_version'] AS model_version
FROM scored
