-- one row per promotion of a shown item_id that touches the last 180 days or the forecast horizon
WITH shown AS (
    SELECT item_id FROM shown_items
)
SELECT promotions.item_id, promotions.starts_on, promotions.ends_on
FROM shown JOIN promotions ON promotions.item_id = shown.item_id
WHERE promotions.ends_on >= CAST(run_date() AS DATE) - 180
    AND promotions.starts_on < CAST(run_date() AS DATE) + CAST(demand_horizon_days() AS INT)
ORDER BY promotions.item_id, promotions.starts_on
