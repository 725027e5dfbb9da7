-- one row per segment with at least segment_users_min() and k_min() users behind it: counts and means
-- The report has means of all users. Where fewer than k_min() users are in no published segment, theirs would follow; so the
-- smallest of several published segments is left out as well. A single one stays; sql/report/intent_days.sql then leaves them out.
WITH counted AS (
    SELECT
        segment,
        count(*) AS users,
        avg(p_purchase) AS p_purchase_mean,
        avg(p_churn) AS p_churn_mean,
        avg(expected_units) AS expected_units_mean,
        avg(expected_spend) AS expected_spend_mean,
        avg(anomaly_score) AS anomaly_score_mean,
        avg(CAST(events_seen AS DOUBLE)) AS events_seen_mean,
        count(*) >= greatest(segment_users_min(), k_min()) AS is_large
    FROM intent
    GROUP BY segment
),
ranked AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY is_large ORDER BY users, segment) AS place,
        sum(CASE WHEN is_large THEN 1 ELSE 0 END) OVER () AS segments_large,
        sum(CASE WHEN is_large THEN 0 ELSE users END) OVER () AS users_left_out
    FROM counted
)
SELECT
    segment, users, p_purchase_mean, p_churn_mean, expected_units_mean, expected_spend_mean, anomaly_score_mean,
    events_seen_mean
FROM ranked
WHERE is_large AND NOT (place = 1 AND segments_large > 1 AND users_left_out BETWEEN 1 AND k_min() - 1)
