-- one row per shown item_id and day of the last 180 with a sale or a view
WITH shown AS (
    SELECT item_id FROM shown_items
),
sold AS (
    SELECT item_id, event_day, units FROM item_day
    WHERE event_day >= CAST(run_date() AS DATE) - 180 AND (units > 0 OR views > 0)
)
SELECT sold.item_id, sold.event_day AS day, CAST(sold.units AS DOUBLE) AS units
FROM shown JOIN sold ON sold.item_id = shown.item_id
ORDER BY sold.item_id, day
