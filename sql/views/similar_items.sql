-- one row per item of the catalogue, the twenty nearest to a text: change the text in `asked`
-- Uses the champion's encoder; embed_text(…, 'a version or a folder') uses another. For vectors of length one, the cosine is
-- one less half the squared distance.
WITH asked AS (
    SELECT embed_text('a warm light for the bedroom') AS vector
),
titled AS (
    SELECT item_id, title, category, embed_text(title) AS vector
    FROM items
    WHERE title IS NOT NULL
)
SELECT
    titled.item_id,
    titled.title,
    titled.category,
    1 - power(array_distance(titled.vector, asked.vector), 2) / 2 AS likeness
FROM titled CROSS JOIN asked
ORDER BY likeness DESC, titled.item_id
LIMIT 20
