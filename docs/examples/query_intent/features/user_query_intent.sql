-- one row per user_id who searched within the look-back: how far the queries ask for a gift, as a text model reads them
-- Rounded: a probability may differ in its seventh digit by what stood beside the text in a batch, and a feature may not.
WITH queries AS (
    SELECT user_id, ts, event_key, query
    FROM user_event
    WHERE event_type = 'search' AND query IS NOT NULL
),
scored AS (
    SELECT user_id, ts, event_key, round(classify_text(query, 'MODEL', 'gift'), 4) AS gift
    FROM queries
),
-- In whole ten-thousandths, so that the sum is the same bits whatever the order of rows.
final AS (
    SELECT
        user_id,
        CAST(sum(CAST(gift * 10000 AS BIGINT)) AS DOUBLE) / (10000 * count(gift)) AS query_gift_mean,
        max(gift) AS query_gift_max
    FROM scored
    GROUP BY user_id
)
SELECT user_id, query_gift_mean, query_gift_max
FROM final
