-- one row per shown item_id and day of the last 180 that began without stock and had no sale
-- Days without an inventory row count as in stock, unless a night of that day found none: replenishment keeps what it read.
WITH shown AS (
    SELECT item_id FROM shown_items
),
counted AS (
    SELECT item_id, as_of AS day, on_hand FROM inventory
    WHERE as_of >= CAST(run_date() AS DATE) - 180 AND as_of < CAST(run_date() AS DATE)
    UNION ALL
    SELECT item_id, run_date AS day, on_hand FROM replenishment_history
    WHERE run_date >= CAST(run_date() AS DATE) - 180 AND run_date < CAST(run_date() AS DATE)
),
empty AS (
    SELECT counted.item_id, counted.day
    FROM shown JOIN counted ON counted.item_id = shown.item_id
    GROUP BY counted.item_id, counted.day
    HAVING max(counted.on_hand) <= 0
),
sold AS (
    SELECT item_id, event_day FROM item_day WHERE units > 0 AND event_day >= CAST(run_date() AS DATE) - 180
)
SELECT empty.item_id, empty.day
FROM empty LEFT ANTI JOIN sold ON sold.item_id = empty.item_id AND sold.event_day = empty.day
ORDER BY empty.item_id, empty.day
