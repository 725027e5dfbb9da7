-- one row per scored user_id: the intents by another model than the night's own; none without promotion.shadow_version
SELECT * FROM shadow_scores
