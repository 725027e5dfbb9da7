-- one row per user_id with an event on or after the run date and before its horizon's end: what it then did
-- Users without a row did nothing; training reads them as zeros (and as churned).
WITH outcome AS (
    SELECT
        coalesce(u.canonical_user_id, d.user_id) AS user_id,
        d.event_day < run_date() + CAST(horizon_days() AS INT) AS within,
        d.views, d.clicks, d.searches, d.favorites, d.carts, d.purchases, d.reviews, d.units, d.spend
    FROM stitched u RIGHT JOIN unit_user_day d ON d.user_id = u.user_id
    WHERE d.event_day >= run_date()
        AND d.event_day < run_date() + CAST(greatest(horizon_days(), churn_days()) AS INT)
        AND d.event_day < labels_end() AND d.arrival_day < labels_end()
)
SELECT
    user_id,
    CAST(bool_or(within AND views + clicks > 0) AS INT) AS y_view,
    CAST(bool_or(within AND searches > 0) AS INT) AS y_search,
    CAST(bool_or(within AND favorites > 0) AS INT) AS y_favorite,
    CAST(bool_or(within AND carts > 0) AS INT) AS y_cart,
    CAST(bool_or(within AND purchases > 0) AS INT) AS y_purchase,
    CAST(bool_or(within AND reviews > 0) AS INT) AS y_review,
    CAST(sum(CASE WHEN within THEN units ELSE 0 END) AS DOUBLE) AS y_units,
    CAST(sum(CASE WHEN within THEN spend ELSE 0 END) AS DOUBLE) AS y_spend
FROM outcome
GROUP BY user_id
