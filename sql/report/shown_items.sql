-- one row per item_id whose history and forecast the page shows: the 300 largest changes and the most urgent orders, 1,000 at most
-- On a night without another one to compare with, the 300 items of most demand take the place of the changes.
WITH sizes AS (
    -- Not abs(…): DataFusion 55.2 refuses its own plan of an order by it ("does not satisfy order requirements").
    SELECT item_id, greatest(coalesce(demand_change, demand_mean), -coalesce(demand_change, demand_mean)) AS size
    FROM item_changes
),
changes AS (
    SELECT item_id, row_number() OVER (ORDER BY size DESC, item_id) AS place FROM sizes
),
orders AS (
    SELECT item_id, row_number() OVER (ORDER BY stock_out_risk DESC NULLS LAST, days_of_cover, item_id) AS urgency
    FROM replenishment
    WHERE order_quantity > 0
),
largest_changes AS (
    SELECT item_id, place FROM changes WHERE place <= 300
),
shown AS (
    SELECT coalesce(orders.item_id, largest_changes.item_id) AS item_id, largest_changes.place, orders.urgency
    FROM largest_changes FULL JOIN orders ON orders.item_id = largest_changes.item_id
)
SELECT item_id, place AS change_place, urgency
FROM shown
ORDER BY place IS NULL, coalesce(urgency, place), item_id
LIMIT 1000
