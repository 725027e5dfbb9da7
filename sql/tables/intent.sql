-- one row per scored user_id: the published intents
SELECT
    s.user_id,
    s.p_view, s.p_search, s.p_favorite, s.p_cart, s.p_purchase, s.p_review,
    s.p_churn, s.expected_units, s.expected_spend,
    s.anomaly_score,
    g.segment,
    s.events_seen,
    s.last_seen_at,
    s.model_version
FROM intent_scores s JOIN segments g ON s.user_id = g.user_id
