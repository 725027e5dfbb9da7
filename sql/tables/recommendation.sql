-- one row per scored user_id and rank: the model's best items by taste and last events, without those bought if so configured
-- The engine holds a join's first table in memory and streams the second, so the small one comes first. Its key has its own
-- name: DataFusion 55.2, when it moves struct fields down, takes a column that both sides have from the first side.
WITH buyers AS (
    SELECT user_id AS buyer_id, bought FROM user_bought
),
picked AS (
    SELECT
        scores.user_id,
        unnest(recommend(
            scores.taste,
            scores.latest_items,
            CASE WHEN recommendation_exclude_bought() THEN buyers.bought END,
            recommendation_top_k()
        )) AS pick
    FROM buyers RIGHT JOIN intent_scores AS scores ON scores.user_id = buyers.buyer_id
)
SELECT user_id, pick['rank'] AS rank, pick['item_id'] AS item_id, pick['score'] AS score FROM picked
