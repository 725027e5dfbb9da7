-- one row per item of the catalogue, the twenty nearest to a text: change the text in `asked`
-- By the champion's encoder; embed_text(…, 'a version or a folder') takes another. For vectors of length one, the cosine is
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
    t.item_id,
    t.title,
    t.category,
    1 - power(array_distance(t.vector, a.vector), 2) / 2 AS likeness
FROM titled t CROSS JOIN asked a
ORDER BY likeness DESC, t.item_id
LIMIT 20
