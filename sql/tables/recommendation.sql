-- one row per scored user_id and rank: the model's best items, without those bought where so configured
WITH picked AS (
    SELECT
        s.user_id,
        unnest(recommend(
            s.taste,
            CASE WHEN recommendation_exclude_bought() THEN b.bought END,
            recommendation_top_k()
        )) AS pick
    FROM intent_scores s LEFT JOIN user_bought b ON s.user_id = b.user_id
),
plain AS (
    SELECT user_id, pick['item_id'] AS item_id, pick['score'] AS score FROM picked
)
SELECT
    user_id,
    CAST(row_number() OVER (PARTITION BY user_id ORDER BY score DESC, item_id) AS INT) AS rank,
    item_id,
    score
FROM plain
