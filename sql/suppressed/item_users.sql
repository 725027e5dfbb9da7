-- one row per item_id of the night's forecasts: its category, and the number of users behind its intent_units
SELECT items.item_id, items.category, count(recommendation.user_id) AS users
FROM recommendation
    RIGHT JOIN (SELECT item_id, min(coalesce(category, '')) AS category FROM demand GROUP BY item_id) AS items
        ON recommendation.item_id = items.item_id
GROUP BY items.item_id, items.category
