-- one row per distinct text that a model may read: titles of the catalogue, and what scored users searched and reviewed
-- Of users who refuse, or are erased, no text is encoded.
WITH said AS (
    SELECT user_id, unnest([query, text]) AS text
    FROM user_event
    WHERE query IS NOT NULL OR text IS NOT NULL
)
SELECT content_key(title) AS content_key, title AS text
FROM items
WHERE content_key(title) IS NOT NULL
UNION
SELECT content_key(e.text) AS content_key, e.text
FROM scored_users s JOIN said e ON s.user_id = e.user_id
WHERE content_key(e.text) IS NOT NULL
