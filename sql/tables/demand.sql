-- one row per item_id and target date: the published demand forecast, and what the purchase intents add up to
-- intent_units: each user's p_purchase shared out over the user's recommended items, by a softmax of their scores. An
-- approximation: what a user likes beyond the top K counts as liking of those K, and a purchase as one unit. The total
-- of an item is over the intents' horizon; it lies on the first horizon_days() dates as the forecast means do.
WITH forecasts AS (
    SELECT item_id, step, mean, q05, q10, q25, q50, q75, q90, q95 FROM demand_forecasts
),
likings AS (
    SELECT user_id, rank, item_id, score FROM recommendation
),
intents AS (
    SELECT user_id, p_purchase FROM intent
),
-- The best score of each user; subtracted, so that no exponential overflows.
best AS (
    SELECT user_id, score AS top FROM likings WHERE rank = 1
),
weights AS (
    SELECT l.user_id, max(b.top) AS top, sum(exp(l.score - b.top)) AS total
    FROM best b JOIN likings l ON l.user_id = b.user_id
    GROUP BY l.user_id
),
shares AS (
    SELECT w.user_id, w.top, i.p_purchase / w.total AS share FROM weights w JOIN intents i ON i.user_id = w.user_id
),
-- The small table stands first: the engine holds it in memory and streams the likings past it.
wanted AS (
    SELECT l.item_id, sum(s.share * exp(l.score - s.top)) AS units
    FROM shares s JOIN likings l ON l.user_id = s.user_id
    GROUP BY l.item_id
),
horizon AS (
    SELECT item_id, sum(mean) AS mean, count(*) AS days FROM forecasts
    WHERE step >= 1 AND step <= horizon_days()
    GROUP BY item_id
),
final AS (
    -- Step 0 is the cumulative demand over the lead time; replenishment reads it, planners of single days do not.
    SELECT
        f.item_id,
        CAST(run_date() AS DATE) + CAST(f.step - 1 AS INT) AS target_date,
        f.mean, f.q05, f.q10, f.q25, f.q50, f.q75, f.q90, f.q95,
        CASE WHEN f.step <= horizon_days() THEN
            coalesce(w.units, 0.0) * CASE WHEN h.mean > 0 THEN f.mean / h.mean ELSE 1.0 / h.days END
        END AS intent_units
    FROM forecasts f
        LEFT JOIN horizon h ON f.item_id = h.item_id
        LEFT JOIN wanted w ON f.item_id = w.item_id
    WHERE f.step >= 1
)
SELECT
    item_id,
    target_date,
    mean, q05, q10, q25, q50, q75, q90, q95,
    intent_units
FROM final
