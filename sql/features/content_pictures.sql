-- one row per item_id and picture of the catalogue: the input of an image encoder
SELECT content_key(image) AS content_key, item_id, image
FROM items
WHERE content_key(image) IS NOT NULL
