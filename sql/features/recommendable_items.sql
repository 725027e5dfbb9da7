-- one row per item_id that can be recommended: those that anybody met in the last 28 days, and what they show
SELECT
    d.item_id,
    min(c.category) AS category,
    min(c.text_key) AS text_key,
    min(c.image_key) AS image_key,
    min(c.video_key) AS video_key
FROM item_day d LEFT JOIN item_contents c ON d.item_id = c.item_id
WHERE d.event_day >= run_date() - 28
GROUP BY d.item_id
