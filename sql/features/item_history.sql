-- one row per item_id ever sold or seen: its dense daily history as forecast_demand takes it
WITH lists AS (
    SELECT
        item_id,
        min(day) AS first_date,
        ordered_list(day, units) AS units,
        ordered_list(day, price) AS price,
        ordered_list(day, promoted) AS promoted,
        ordered_list(day, in_stock) AS in_stock,
        ordered_list(day, views) AS views,
        ordered_list(day, carts) AS carts,
        max(days_since_first_seen) + 1 AS days_since_first_seen
    FROM item_days
    GROUP BY item_id
),
lead_times AS (
    SELECT item_id, last_value(lead_time_days ORDER BY as_of) AS lead_time_days
    FROM inventory WHERE as_of <= run_date() GROUP BY item_id
),
-- The engine holds a join's first table in memory and streams the second: the small one stands first.
timed AS (
    SELECT
        l.item_id, l.first_date, l.units, l.price, l.promoted, l.in_stock, l.views, l.carts, l.days_since_first_seen,
        t.lead_time_days
    FROM lead_times t RIGHT JOIN lists l ON l.item_id = t.item_id
)
SELECT
    t.item_id,
    named_struct(
        'item_id', t.item_id,
        'first_date', t.first_date,
        'units', t.units,
        'price', t.price,
        'promoted', t.promoted,
        'in_stock', t.in_stock,
        'views', t.views,
        'carts', t.carts,
        'promoted_future', p.promoted_future,
        'days_since_first_seen', t.days_since_first_seen,
        'lead_time_days', CAST(coalesce(t.lead_time_days, default_lead_time_days()) AS INT)
    ) AS history
FROM item_promotions p RIGHT JOIN timed t ON t.item_id = p.item_id
