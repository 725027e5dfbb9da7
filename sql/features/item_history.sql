-- one row per item_id ever sold or seen: its dense daily history as forecast_demand takes it
WITH lists AS (
    SELECT
        item_id,
        min(day) AS first_date,
        array_agg(units ORDER BY day) AS units,
        array_agg(price ORDER BY day) AS price,
        array_agg(promoted ORDER BY day) AS promoted,
        array_agg(in_stock ORDER BY day) AS in_stock,
        array_agg(views ORDER BY day) AS views,
        array_agg(carts ORDER BY day) AS carts,
        max(days_since_first_seen) + 1 AS days_since_first_seen
    FROM item_days
    GROUP BY item_id
),
lead_times AS (
    SELECT item_id, last_value(lead_time_days ORDER BY as_of) AS lead_time_days
    FROM inventory WHERE as_of <= run_date() GROUP BY item_id
)
SELECT
    l.item_id,
    named_struct(
        'item_id', l.item_id,
        'category', c.category,
        'first_date', l.first_date,
        'units', l.units,
        'price', l.price,
        'promoted', l.promoted,
        'in_stock', l.in_stock,
        'views', l.views,
        'carts', l.carts,
        'promoted_future', p.promoted_future,
        'price_future', p.price_future,
        'days_since_first_seen', l.days_since_first_seen,
        'lead_time_days', CAST(coalesce(t.lead_time_days, default_lead_time_days()) AS INT)
    ) AS history
FROM lists l
    LEFT JOIN lead_times t ON l.item_id = t.item_id
    LEFT JOIN item_promotions p ON l.item_id = p.item_id
    LEFT JOIN item_category c ON l.item_id = c.item_id
