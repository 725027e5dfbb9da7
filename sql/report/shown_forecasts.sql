-- one row per shown item_id and target date: the night's forecast
WITH shown AS (
    SELECT item_id FROM shown_items
)
SELECT
    demand.item_id, demand.target_date, demand.mean,
    demand.q05, demand.q10, demand.q25, demand.q50, demand.q75, demand.q90, demand.q95
FROM shown JOIN demand ON demand.item_id = shown.item_id
ORDER BY demand.item_id, demand.target_date
