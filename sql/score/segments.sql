-- one row per user_id: the segment that the first matching rule gives; marketing edits the rules here
SELECT
    s.user_id,
    CASE
        WHEN s.anomaly_score >= 8.0 THEN 'suspicious'
        WHEN s.p_purchase >= 0.5 THEN 'about to buy'
        WHEN s.p_churn >= 0.7 AND s.events_seen >= 20 THEN 'at risk'
        WHEN f.purchase_days_lifetime >= 3 AND f.refunds_90d < f.spend_90d THEN 'loyal'
        WHEN f.cart_removals_28d > f.purchases_28d AND f.carts_28d >= 3 THEN 'bargain hunter'
        ELSE 'browsing'
    END AS segment
FROM intent_scores s JOIN user_features f ON s.user_id = f.user_id
