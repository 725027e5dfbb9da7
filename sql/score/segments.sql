-- one row per user_id: the segment that the first matching rule gives; marketing edits the rules here
WITH users_scored AS (
    SELECT user_id, p_purchase, p_churn, expected_spend, anomaly_score, events_seen FROM intent_scores
),
final AS (
    SELECT
        user_id,
        CASE
            WHEN anomaly_score > 6.0 THEN 'suspicious'
            WHEN p_purchase >= 0.5 THEN 'about to buy'
            WHEN p_churn >= 0.7 AND events_seen >= 20 THEN 'at risk'
            WHEN p_purchase >= 0.2 THEN 'loyal'
            ELSE 'browsing'
        END AS segment
    FROM users_scored
)
SELECT user_id, segment FROM final
