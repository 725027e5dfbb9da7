-- check (stops the night): one row per column with amounts that are negative or not numbers
WITH amounts AS (
    SELECT 'intent.expected_units' AS name, expected_units AS amount FROM intent
    UNION ALL SELECT 'intent.expected_spend' AS name, expected_spend AS amount FROM intent
    UNION ALL SELECT 'demand.mean' AS name, mean AS amount FROM demand
    UNION ALL SELECT 'demand.intent_units' AS name, intent_units AS amount FROM demand
    UNION ALL SELECT 'replenishment.order_quantity' AS name, order_quantity AS amount FROM replenishment
)
SELECT
    name AS subject,
    'numbers at or above 0' AS expected,
    concat(count(*), ' rows below 0 or not a number') AS got
FROM amounts
WHERE isnan(amount) OR amount < 0
GROUP BY name
ORDER BY subject
