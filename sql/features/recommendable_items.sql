-- one row per item_id that can be recommended: those that anybody met in the last 28 days, what they show, and how often they
-- were met on a day of these on which they were there
SELECT
    d.item_id,
    min(c.category) AS category,
    min(c.text_key) AS text_key,
    min(c.image_key) AS image_key,
    min(c.video_key) AS video_key,
    CAST(sum(d.views + d.carts + d.units) AS DOUBLE) / (CAST(run_date() AS INT) - CAST(min(d.event_day) AS INT)) AS met_per_day
FROM item_day d LEFT JOIN item_contents c ON d.item_id = c.item_id
WHERE d.event_day >= run_date() - 28
GROUP BY d.item_id
