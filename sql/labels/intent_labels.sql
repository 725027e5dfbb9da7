-- one row per user_id with an event on or after the run date and before its horizon's end: what that person did then
-- Users without a row did nothing: training reads them as zeros (and as churned). Ids of one person: persons.sql.
WITH outcome AS (
    SELECT
        coalesce(persons.canonical_user_id, days.user_id) AS user_id,
        days.event_day < run_date() + CAST(horizon_days() AS INT) AS within,
        days.views, days.clicks, days.searches, days.favorites, days.carts, days.purchases, days.reviews, days.units,
        days.spend
    FROM persons RIGHT JOIN unit_user_day AS days ON days.user_id = persons.user_id
    WHERE days.event_day >= run_date()
        AND days.event_day < run_date() + CAST(greatest(horizon_days(), churn_days()) AS INT)
        AND days.event_day < labels_end() AND days.arrival_day < labels_end()
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
    unnest(coalesce(array_append(absorbed.ids, by_person.user_id), make_array(by_person.user_id))) AS user_id,
    by_person.* EXCLUDE (user_id)
FROM absorbed RIGHT JOIN by_person ON absorbed.user_id = by_person.user_id
