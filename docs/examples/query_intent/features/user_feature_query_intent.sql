-- one row per user_id who searched within the look-back: how far the queries ask for a gift, as a text model classifies them
-- Rounded, because the other texts of a batch can change the seventh digit of a probability, and a feature must not change.
WITH queries AS (
    SELECT user_id, round(classify_text(query, 'MODEL', 'gift'), 4) AS gift
    FROM user_event
    WHERE event_type = 'search' AND query IS NOT NULL
)
SELECT
    user_id,
    -- In whole ten-thousandths, so that the order of rows does not change a bit of the sum.
    CAST(sum(CAST(gift * 10000 AS BIGINT)) AS DOUBLE) / (10000 * count(gift)) AS query_gift_mean,
    max(gift) AS query_gift_max
FROM queries
GROUP BY user_id
