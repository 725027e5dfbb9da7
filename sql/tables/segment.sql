-- one row per segment with at least segment_users_min() and k_min() users behind it: counts and means
-- No table holds totals over all segments, from which the means of one that is left out would follow.
SELECT
    segment,
    count(*) AS users,
    avg(p_purchase) AS p_purchase_mean,
    avg(p_churn) AS p_churn_mean,
    avg(expected_units) AS expected_units_mean,
    avg(expected_spend) AS expected_spend_mean,
    avg(anomaly_score) AS anomaly_score_mean,
    avg(CAST(events_seen AS DOUBLE)) AS events_seen_mean
FROM intent
GROUP BY segment
HAVING count(*) >= greatest(segment_users_min(), k_min())
