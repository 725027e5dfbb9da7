-- one row per shown item_id and past target date: what the newest night on or before that day forecast for it
WITH shown AS (
    SELECT item_id FROM shown_items
),
forecasts AS (
    SELECT
        demand_history.item_id,
        demand_history.target_date,
        demand_history.run_date AS night,
        demand_history.mean,
        demand_history.q10,
        demand_history.q90,
        row_number() OVER (
            PARTITION BY demand_history.item_id, demand_history.target_date ORDER BY demand_history.run_date DESC
        ) AS recency
    FROM shown JOIN demand_history ON demand_history.item_id = shown.item_id
    WHERE demand_history.target_date < CAST(run_date() AS DATE)
        AND demand_history.target_date >= CAST(run_date() AS DATE) - 90
        AND demand_history.run_date < CAST(run_date() AS DATE)
        AND demand_history.run_date >= CAST(run_date() AS DATE) - 120
)
SELECT item_id, target_date, night, mean, q10, q90
FROM forecasts
WHERE recency = 1
ORDER BY item_id, target_date
