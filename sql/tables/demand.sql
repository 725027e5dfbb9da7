-- one row per item_id and target date: the published demand forecast, and what the purchase intents add up to
-- intent_units: each user's p_purchase distributed over the user's recommended items by a softmax of their scores. An
-- approximation: what a user likes beyond the top K counts towards those K, and a purchase counts as one unit. An item's total
-- over the intents' horizon is spread over the first horizon_days() dates in proportion to the forecast means.
-- Reconciled: over that horizon each category moves from the network's sum towards the intents' by tonight's weight
-- (sql/score/intent_weight.sql), and all of its items, with their quantiles, by the same factor. Categories and not items,
-- because intents predict how much will be bought better than what. That is the minimum-trace reconciliation (Wickramasuriya,
-- Athanasopoulos and Hyndman 2019, "Optimal forecast reconciliation", weighted least squares) of the items with their
-- category's combined sum, if an item's error variance is proportional to its mean. Days beyond the horizon move by the same
-- factor: what a network misses this week it has been seen to miss in the next ones (docs/models/demand.md).
-- The factor tells the sum of a category's intents. So a category stays as the network forecasts it where only items of fewer than
-- k_min() users are promised anything, or where it has such items and no forecasts, as each item then gets its own promise.
WITH forecasts AS (
    SELECT item_id, step, mean, q05, q10, q25, q50, q75, q90, q95 FROM demand_forecasts
),
-- The best score of each user; subtracted, so that no exponential overflows.
best AS (
    SELECT user_id, score AS top FROM recommendation WHERE rank = 1
),
weights AS (
    SELECT
        recommendation.user_id,
        max(best.top) AS top,
        sum(exp(recommendation.score - best.top)) AS total
    FROM best JOIN recommendation ON recommendation.user_id = best.user_id
    GROUP BY recommendation.user_id
),
shares AS (
    SELECT weights.user_id, weights.top, intent.p_purchase / weights.total AS share
    FROM weights JOIN intent ON intent.user_id = weights.user_id
),
-- The engine holds a join's first table in memory and streams the second, so the small one comes first.
wanted AS (
    SELECT
        recommendation.item_id,
        sum(shares.share * exp(recommendation.score - shares.top)) AS units,
        count(*) AS users
    FROM shares JOIN recommendation ON recommendation.user_id = shares.user_id
    GROUP BY recommendation.item_id
),
horizon AS (
    SELECT item_id, sum(mean) AS mean, count(*) AS days FROM forecasts
    WHERE step >= 1 AND step <= horizon_days()
    GROUP BY item_id
),
promised AS (
    SELECT
        horizon.item_id,
        item_category.category,
        horizon.mean,
        horizon.days,
        coalesce(wanted.units, 0.0) AS units,
        coalesce(wanted.users, 0) BETWEEN 1 AND k_min() - 1 AS is_small
    FROM horizon
        LEFT JOIN wanted ON horizon.item_id = wanted.item_id
        LEFT JOIN item_category ON horizon.item_id = item_category.item_id
),
sums AS (
    SELECT
        coalesce(category, '') AS category,
        sum(mean) AS mean,
        sum(units) AS units,
        bool_or(is_small) AND (sum(mean) = 0 OR NOT bool_or(units > 0 AND NOT is_small)) AS of_few_users
    FROM promised
    GROUP BY coalesce(category, '')
),
-- The factor by which an item moves with its category; an item to which the network gives nothing gets what the intents
-- promise.
factors AS (
    SELECT
        promised.*,
        sums.mean AS category_mean,
        sums.of_few_users,
        intent_weight.intent_weight,
        CASE WHEN sums.mean > 0 AND NOT sums.of_few_users
            THEN 1.0 - intent_weight.intent_weight + intent_weight.intent_weight * sums.units / sums.mean
            ELSE 1.0
        END AS factor
    FROM promised JOIN sums ON sums.category = coalesce(promised.category, '') CROSS JOIN intent_weight
),
-- Step 0 is the cumulative demand over the lead time; replenishment reads it, planners of single days do not. Again the small
-- table comes first.
days AS (
    SELECT
        forecasts.item_id,
        CAST(run_date() AS DATE) + CAST(forecasts.step - 1 AS INT) AS target_date,
        factors.category,
        forecasts.mean AS model_mean,
        forecasts.q05, forecasts.q10, forecasts.q25, forecasts.q50, forecasts.q75, forecasts.q90, forecasts.q95,
        CASE WHEN forecasts.step <= horizon_days() THEN
            factors.units * CASE WHEN factors.mean > 0 THEN forecasts.mean / factors.mean ELSE 1.0 / factors.days END
        END AS intent_units,
        factors.category_mean,
        factors.of_few_users,
        factors.intent_weight,
        factors.factor,
        -- Quantiles in whole units stay whole.
        forecasts.q05 = round(forecasts.q05) AND forecasts.q10 = round(forecasts.q10)
            AND forecasts.q25 = round(forecasts.q25) AND forecasts.q50 = round(forecasts.q50)
            AND forecasts.q75 = round(forecasts.q75) AND forecasts.q90 = round(forecasts.q90)
            AND forecasts.q95 = round(forecasts.q95) AS whole
    FROM factors JOIN forecasts ON forecasts.item_id = factors.item_id
    WHERE forecasts.step >= 1
)
SELECT
    item_id,
    target_date,
    CASE
        WHEN category_mean = 0 AND intent_units IS NOT NULL AND NOT of_few_users THEN intent_weight * intent_units
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
