-- one row per visible night whose intents' horizon has passed, and hold_out: what these persons bought within the horizon
-- With intents.hold_out_share above 0, and actions that leave these users out, the difference of two rows is what acting is worth.
-- Query it as of a date by which the horizons have passed. A guest counts for the login that is known by then; a person with ids
-- in both groups is left out.
WITH nights AS (
    SELECT
        intent_history.run_date AS night,
        coalesce(stitched.canonical_user_id, intent_history.user_id) AS user_id,
        bool_or(intent_history.hold_out) AS hold_out,
        max(intent_history.p_purchase) AS p_purchase
    FROM stitched RIGHT JOIN intent_history ON stitched.user_id = intent_history.user_id
    WHERE intent_history.hold_out IS NOT NULL
        AND intent_history.run_date <= run_date() - CAST(horizon_days() AS INT)
    GROUP BY intent_history.run_date, coalesce(stitched.canonical_user_id, intent_history.user_id)
    HAVING bool_or(intent_history.hold_out) = bool_and(intent_history.hold_out)
),
bought AS (
    SELECT nights.night, nights.user_id, sum(CAST(days.spend AS DOUBLE)) AS spend
    FROM nights JOIN user_day_rows AS days ON days.user_id = nights.user_id
    WHERE days.purchases > 0
        AND days.event_day >= nights.night AND days.event_day < nights.night + CAST(horizon_days() AS INT)
    GROUP BY nights.night, nights.user_id
)
SELECT
    nights.night AS run_date,
    nights.hold_out,
    count(*) AS users,
    count(bought.user_id) AS buyers,
    avg(nights.p_purchase) AS p_purchase_mean,
    CAST(count(bought.user_id) AS DOUBLE) / count(*) AS bought_share,
    coalesce(sum(bought.spend), 0) / count(*) AS spend_mean
FROM bought RIGHT JOIN nights ON bought.user_id = nights.user_id AND bought.night = nights.night
GROUP BY nights.night, nights.hold_out
ORDER BY run_date, hold_out
