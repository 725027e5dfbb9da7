-- one row per night of the last 28 days: the mean of each intent over all users
SELECT
    run_date,
    count(*) AS users,
    avg(p_view) AS p_view,
    avg(p_search) AS p_search,
    avg(p_favorite) AS p_favorite,
    avg(p_cart) AS p_cart,
    avg(p_purchase) AS p_purchase,
    avg(p_review) AS p_review,
    avg(p_churn) AS p_churn
FROM intent_history
WHERE run_date > CAST(run_date() AS DATE) - 28
GROUP BY run_date
ORDER BY run_date
