-- one row per item_id whose intent_units are not published: fewer than k_min() users are behind them, or they cover such items
-- Where intents move the forecasts, the ratio of mean to model_mean tells the sum of a category's intents. So that no item of few
-- users follows from it, the smallest item of at least k_min() users is left out, too, in each category with such items.
WITH ranked AS (
    SELECT item_id, category, row_number() OVER (PARTITION BY category ORDER BY users, item_id) AS place
    FROM item_users
    WHERE users >= k_min()
),
small AS (
    SELECT item_id, category FROM item_users WHERE users BETWEEN 1 AND k_min() - 1
),
with_gaps AS (
    SELECT DISTINCT category FROM small
)
SELECT item_id FROM small
UNION ALL
SELECT ranked.item_id FROM with_gaps JOIN ranked ON ranked.category = with_gaps.category WHERE ranked.place = 1
