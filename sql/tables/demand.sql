-- one row per item_id and target date: the published demand forecast, and what the purchase intents add up to
-- intent_units: each user's p_purchase shared out over the user's recommended items, by a softmax of their scores. An
-- approximation: what a user likes beyond the top K counts as liking of those K, and a purchase as one unit. The total
-- of an item is over the intents' horizon; it lies on the first horizon_days() dates as the forecast means do.
-- Reconciled: over that horizon each category moves from the network's sum towards the intents' by tonight's weight
-- (sql/score/intent_weight.sql), and all of its items, with their quantiles, by the same factor. Categories and not items,
-- because intents know how much will be bought better than what. That is the minimum-trace reconciliation (Wickramasuriya,
-- Athanasopoulos and Hyndman 2019, "Optimal forecast reconciliation", weighted least squares) of the items with their
-- category's combined sum, where an item's error variance is as its mean. Days beyond the horizon move alike: what a network
-- misses this week it has been seen to miss the next ones (docs/models/demand.md).
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
promised AS (
    SELECT h.item_id, c.category, h.mean, h.days, coalesce(w.units, 0.0) AS units
    FROM horizon h
        LEFT JOIN wanted w ON h.item_id = w.item_id
        LEFT JOIN item_category c ON h.item_id = c.item_id
),
sums AS (
    SELECT coalesce(category, '') AS category, sum(mean) AS mean, sum(units) AS units
    FROM promised
    GROUP BY coalesce(category, '')
),
-- What its category's factor makes of an item; one that the network gives nothing takes what the intents promise.
factors AS (
    SELECT
        p.item_id, p.category, p.mean, p.days, p.units, s.mean AS category_mean, w.intent_weight,
        CASE WHEN s.mean > 0 THEN 1.0 - w.intent_weight + w.intent_weight * s.units / s.mean ELSE 1.0 END AS factor
    FROM promised p JOIN sums s ON s.category = coalesce(p.category, '') CROSS JOIN intent_weight w
),
-- Step 0 is the cumulative demand over the lead time; replenishment reads it, planners of single days do not. Again the small
-- table stands first.
days AS (
    SELECT
        f.item_id,
        CAST(run_date() AS DATE) + CAST(f.step - 1 AS INT) AS target_date,
        i.category,
        f.mean AS model_mean,
        f.q05, f.q10, f.q25, f.q50, f.q75, f.q90, f.q95,
        CASE WHEN f.step <= horizon_days() THEN
            i.units * CASE WHEN i.mean > 0 THEN f.mean / i.mean ELSE 1.0 / i.days END
        END AS intent_units,
        i.category_mean,
        i.intent_weight,
        i.factor,
        -- Quantiles in whole units stay whole.
        f.q05 = round(f.q05) AND f.q10 = round(f.q10) AND f.q25 = round(f.q25) AND f.q50 = round(f.q50)
            AND f.q75 = round(f.q75) AND f.q90 = round(f.q90) AND f.q95 = round(f.q95) AS whole
    FROM factors i JOIN forecasts f ON f.item_id = i.item_id
    WHERE f.step >= 1
),
final AS (
    SELECT
        item_id,
        target_date,
        CASE
            WHEN category_mean = 0 AND intent_units IS NOT NULL THEN intent_weight * intent_units
            ELSE model_mean * factor
        END AS mean,
        CASE WHEN whole THEN round(q05 * factor) ELSE q05 * factor END AS q05,
        CASE WHEN whole THEN round(q10 * factor) ELSE q10 * factor END AS q10,
        CASE WHEN whole THEN round(q25 * factor) ELSE q25 * factor END AS q25,
        CASE WHEN whole THEN round(q50 * factor) ELSE q50 * factor END AS q50,
        CASE WHEN whole THEN round(q75 * factor) ELSE q75 * factor END AS q75,
        CASE WHEN whole THEN round(q90 * factor) ELSE q90 * factor END AS q90,
        CASE WHEN whole THEN round(q95 * factor) ELSE q95 * factor END AS q95,
        intent_units,
        category,
        model_mean
    FROM days
)
SELECT
    item_id,
    target_date,
    mean, q05, q10, q25, q50, q75, q90, q95,
    intent_units,
    category,
    model_mean
FROM final
