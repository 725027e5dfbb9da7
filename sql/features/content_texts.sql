-- one row per distinct text that a model may read: titles of the catalogue, searches and reviews of scored users
-- Texts of users who refused consent or were erased are not encoded.
WITH texts AS (
    SELECT user_id, unnest([query, text]) AS text
    FROM user_event
    WHERE query IS NOT NULL OR text IS NOT NULL
)
SELECT content_key(title) AS content_key, title AS text
FROM item_rows
WHERE content_key(title) IS NOT NULL
UNION
SELECT content_key(texts.text) AS content_key, texts.text
FROM scored_users JOIN texts ON scored_users.user_id = texts.user_id
WHERE content_key(texts.text) IS NOT NULL
