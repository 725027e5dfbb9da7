-- check (stops the night): one row per column of intents with probabilities that are null, not numbers or outside 0 to 1
-- Generated from src/model/targets.rs by `make docs`.
WITH probabilities AS (
    SELECT 'intent.p_view' AS subject, p_view AS p FROM intent
    UNION ALL SELECT 'intent.p_search' AS subject, p_search AS p FROM intent
    UNION ALL SELECT 'intent.p_favorite' AS subject, p_favorite AS p FROM intent
    UNION ALL SELECT 'intent.p_cart' AS subject, p_cart AS p FROM intent
    UNION ALL SELECT 'intent.p_purchase' AS subject, p_purchase AS p FROM intent
    UNION ALL SELECT 'intent.p_review' AS subject, p_review AS p FROM intent
    UNION ALL SELECT 'intent.p_churn' AS subject, p_churn AS p FROM intent
    UNION ALL SELECT 'intent_shadow.p_view' AS subject, p_view AS p FROM intent_shadow
    UNION ALL SELECT 'intent_shadow.p_search' AS subject, p_search AS p FROM intent_shadow
    UNION ALL SELECT 'intent_shadow.p_favorite' AS subject, p_favorite AS p FROM intent_shadow
    UNION ALL SELECT 'intent_shadow.p_cart' AS subject, p_cart AS p FROM intent_shadow
    UNION ALL SELECT 'intent_shadow.p_purchase' AS subject, p_purchase AS p FROM intent_shadow
    UNION ALL SELECT 'intent_shadow.p_review' AS subject, p_review AS p FROM intent_shadow
    UNION ALL SELECT 'intent_shadow.p_churn' AS subject, p_churn AS p FROM intent_shadow
)
SELECT
    subject,
    'every row between 0 and 1' AS expected,
    concat(count(*), ' rows null, not a number or out of range') AS got
FROM probabilities
WHERE p IS NULL OR isnan(p) OR p < 0 OR p > 1
GROUP BY subject
ORDER BY subject
