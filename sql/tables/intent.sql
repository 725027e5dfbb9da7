-- one row per scored user_id: the published intents
SELECT
    scores.user_id,
    scores.p_view, scores.p_search, scores.p_favorite, scores.p_cart, scores.p_purchase, scores.p_review,
    scores.p_churn, scores.expected_units, scores.expected_spend,
    scores.anomaly_score,
    segments.segment,
    scores.events_seen,
    scores.last_seen_at,
    scores.model_version,
    user_bucket(concat(hold_out_salt(), '|', scores.user_id)) < hold_out_share() * 65536 AS hold_out
FROM intent_scores AS scores JOIN segments ON scores.user_id = segments.user_id
