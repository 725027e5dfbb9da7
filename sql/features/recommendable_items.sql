-- one row per item_id that can be recommended: items with an event in the last 28 days
-- met_per_day: views, carts and units per day since the item's first event in these days.
SELECT
    item_day.item_id,
    min(item_contents.category) AS category,
    min(item_contents.text_key) AS text_key,
    min(item_contents.image_key) AS image_key,
    min(item_contents.video_key) AS video_key,
    CAST(sum(item_day.views + item_day.carts + item_day.units) AS DOUBLE)
        / (CAST(run_date() AS INT) - CAST(min(item_day.event_day) AS INT)) AS met_per_day
FROM item_contents RIGHT JOIN item_day ON item_day.item_id = item_contents.item_id
WHERE item_day.event_day >= run_date() - 28
GROUP BY item_day.item_id
