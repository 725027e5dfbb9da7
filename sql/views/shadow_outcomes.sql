-- one row per visible night with intent_shadow whose intents' horizon has passed: log loss of both models' p_purchase
-- The model with the lower one predicts better who buys within the horizon. Query it as of a date by which the horizons have passed.
-- A guest counts for the login that is known by then.
WITH nights AS (
    SELECT
        shadow.run_date AS night,
        coalesce(stitched.canonical_user_id, shadow.user_id) AS user_id,
        min(intent_history.model_version) AS champion,
        min(shadow.model_version) AS challenger,
        max(intent_history.p_purchase) AS p_champion,
        max(shadow.p_purchase) AS p_challenger
    FROM intent_shadow_history AS shadow
        JOIN intent_history ON intent_history.user_id = shadow.user_id AND intent_history.run_date = shadow.run_date
        LEFT JOIN stitched ON stitched.user_id = shadow.user_id
    WHERE shadow.run_date <= run_date() - CAST(horizon_days() AS INT)
    GROUP BY shadow.run_date, coalesce(stitched.canonical_user_id, shadow.user_id)
),
bought AS (
    SELECT DISTINCT nights.night, nights.user_id
    FROM nights JOIN user_day_rows AS days ON days.user_id = nights.user_id
    WHERE days.purchases > 0
        AND days.event_day >= nights.night AND days.event_day < nights.night + CAST(horizon_days() AS INT)
),
-- The probability that each model gave to what happened.
outcomes AS (
    SELECT
        nights.night, nights.champion, nights.challenger, bought.user_id AS buyer,
        CASE WHEN bought.user_id IS NULL THEN 1 - nights.p_champion ELSE nights.p_champion END AS by_champion,
        CASE WHEN bought.user_id IS NULL THEN 1 - nights.p_challenger ELSE nights.p_challenger END AS by_challenger
    FROM bought RIGHT JOIN nights ON bought.user_id = nights.user_id AND bought.night = nights.night
)
SELECT
    night AS run_date,
    champion,
    challenger,
    count(*) AS users,
    count(buyer) AS buyers,
    avg(-ln(greatest(by_champion, 0.0000001))) AS champion_log_loss,
    avg(-ln(greatest(by_challenger, 0.0000001))) AS challenger_log_loss
FROM outcomes
GROUP BY night, champion, challenger
ORDER BY run_date
