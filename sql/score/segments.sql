-- one row per user_id: the segment of the first rule that matches; marketing edits the rules here
SELECT
    scores.user_id,
    CASE
        WHEN scores.anomaly_score >= 8.0 THEN 'suspicious'
        WHEN scores.p_purchase >= 0.5 THEN 'about to buy'
        WHEN scores.p_churn >= 0.7 AND scores.events_seen >= 20 THEN 'at risk'
        WHEN features.purchase_days_lifetime >= 3 AND features.refunds_90d < features.spend_90d THEN 'loyal'
        WHEN features.cart_removals_28d > features.purchases_28d AND features.carts_28d >= 3 THEN 'bargain hunter'
        ELSE 'browsing'
    END AS segment
FROM intent_scores AS scores JOIN user_features AS features ON scores.user_id = features.user_id
