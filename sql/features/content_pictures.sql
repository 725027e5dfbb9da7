-- one row per row of the catalogue with a picture: the input of an image encoder
SELECT content_key(image) AS content_key, item_id, image
FROM item_rows
WHERE content_key(image) IS NOT NULL
