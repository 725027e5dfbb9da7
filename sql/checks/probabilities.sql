-- check (stops the night): one row per column of intent with probabilities that are null, not numbers or outside 0 to 1
-- Generated from src/model/targets.rs by `make docs`.
WITH probabilities AS (
    SELECT 'p_view' AS name, p_view AS p FROM intent
    UNION ALL SELECT 'p_search' AS name, p_search AS p FROM intent
    UNION ALL SELECT 'p_favorite' AS name, p_favorite AS p FROM intent
    UNION ALL SELECT 'p_cart' AS name, p_cart AS p FROM intent
    UNION ALL SELECT 'p_purchase' AS name, p_purchase AS p FROM intent
    UNION ALL SELECT 'p_review' AS name, p_review AS p FROM intent
    UNION ALL SELECT 'p_churn' AS name, p_churn AS p FROM intent
)
SELECT
    concat('intent.', name) AS subject,
    'every row between 0 and 1' AS expected,
    concat(count(*), ' rows null, not a number or out of range') AS got
FROM probabilities
WHERE p IS NULL OR isnan(p) OR p < 0 OR p > 1
GROUP BY name
ORDER BY subject
