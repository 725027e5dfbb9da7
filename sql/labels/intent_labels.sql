-- one row per user_id with an event on or after the run date and before its horizon's end: what that person then did
-- Users without a row did nothing; training reads them as zeros (and as churned). Ids of one person: persons.sql.
WITH outcome AS (
    SELECT
        coalesce(p.canonical_user_id, d.user_id) AS user_id,
        d.event_day < run_date() + CAST(horizon_days() AS INT) AS within,
        d.views, d.clicks, d.searches, d.favorites, d.carts, d.purchases, d.reviews, d.units, d.spend
    FROM persons p RIGHT JOIN unit_user_day d ON d.user_id = p.user_id
    WHERE d.event_day >= run_date()
        AND d.event_day < run_date() + CAST(greatest(horizon_days(), churn_days()) AS INT)
        AND d.event_day < labels_end() AND d.arrival_day < labels_end()
),
by_person AS (
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
),
absorbed AS (
    SELECT canonical_user_id AS user_id, ordered_list(0, user_id) AS ids FROM persons GROUP BY canonical_user_id
)
SELECT
    unnest(coalesce(array_append(a.ids, b.user_id), make_array(b.user_id))) AS user_id,
    b.y_view, b.y_search, b.y_favorite, b.y_cart, b.y_purchase, b.y_review, b.y_units, b.y_spend
FROM absorbed a RIGHT JOIN by_person b ON a.user_id = b.user_id
