-- one row per night of the last 28 days: the mean of each intent over the users, without those of unpublished segments where they are
-- fewer than k_min(), as their means would follow (sql/tables/segment.sql)
WITH segments AS (
    SELECT run_date, segment, count(*) AS users
    FROM intent_history
    WHERE run_date > CAST(run_date() AS DATE) - 28
    GROUP BY run_date, segment
),
unpublished AS (
    SELECT segments.run_date, segments.segment, sum(segments.users) OVER (PARTITION BY segments.run_date) AS users
    FROM segments
        LEFT ANTI JOIN segment_history AS published
            ON segments.run_date = published.run_date AND segments.segment IS NOT DISTINCT FROM published.segment
),
left_out AS (
    SELECT run_date, segment FROM unpublished WHERE users < k_min()
)
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
FROM intent_history AS intents
    LEFT ANTI JOIN left_out
        ON intents.run_date = left_out.run_date AND intents.segment IS NOT DISTINCT FROM left_out.segment
WHERE run_date > CAST(run_date() AS DATE) - 28
GROUP BY run_date
ORDER BY run_date
