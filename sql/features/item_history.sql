-- one row per item_id ever sold or seen: its dense daily history as forecast_demand takes it
-- Has the items of the session's part (engine.item_parts).
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
        ordered_list(day, intent_units) AS intent_units,
        max(days_since_first_seen) + 1 AS days_since_first_seen
    FROM item_days
    GROUP BY item_id
),
lead_times AS (
    SELECT item_id, last_value(lead_time_days ORDER BY as_of) AS lead_time_days
    FROM inventory
    WHERE as_of <= run_date() AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
    GROUP BY item_id
),
-- The engine holds a join's first table in memory and streams the second, so the small one comes first. The key has its own
-- name: DataFusion 55.2, when it moves struct fields down, takes a column that both sides have from the first side.
timed AS (
    SELECT
        lists.item_id AS own_item_id, lists.first_date, lists.units, lists.price, lists.promoted, lists.in_stock,
        lists.views, lists.carts, lists.intent_units, lists.days_since_first_seen, lead_times.lead_time_days
    FROM lead_times RIGHT JOIN lists ON lists.item_id = lead_times.item_id
)
SELECT
    timed.own_item_id AS item_id,
    named_struct(
        'item_id', timed.own_item_id,
        'category', item_category.category,
        'content', item_content.content,
        'first_date', timed.first_date,
        'units', timed.units,
        'price', timed.price,
        'promoted', timed.promoted,
        'in_stock', timed.in_stock,
        'views', timed.views,
        'carts', timed.carts,
        'intent_units', timed.intent_units,
        'closed_dates', closed_days(),
        'promoted_future', item_promotions.promoted_future,
        'price_future', item_promotions.price_future,
        'days_since_first_seen', timed.days_since_first_seen,
        'lead_time_days', CAST(coalesce(timed.lead_time_days, default_lead_time_days()) AS INT)
    ) AS history
FROM item_category
    RIGHT JOIN (
        item_content RIGHT JOIN (item_promotions RIGHT JOIN timed ON timed.own_item_id = item_promotions.item_id)
            ON timed.own_item_id = item_content.item_id
    ) ON timed.own_item_id = item_category.item_id
