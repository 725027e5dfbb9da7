-- one row per scored user_id and rank: the model's best items, without those bought where so configured
-- The engine holds a join's first table in memory and streams the second: the small one stands first. Its key has a
-- name of its own: DataFusion 55.2 finds a column that both sides have on the first side when it moves struct fields down.
WITH buyers AS (
    SELECT user_id AS buyer_id, bought FROM user_bought
),
picked AS (
    SELECT
        s.user_id,
        unnest(recommend(
            s.taste,
            CASE WHEN recommendation_exclude_bought() THEN b.bought END,
            recommendation_top_k()
        )) AS pick
    FROM buyers b RIGHT JOIN intent_scores s ON s.user_id = b.buyer_id
)
SELECT user_id, pick['rank'] AS rank, pick['item_id'] AS item_id, pick['score'] AS score FROM picked
