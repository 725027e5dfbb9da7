-- one row per content_key and row of the catalogue: the vectors that the lake brings along, of pictures and of videos
SELECT 'image' AS modality, content_key(image_vector) AS content_key, image_vector AS vector
FROM items
WHERE content_key(image_vector) IS NOT NULL
UNION ALL
SELECT 'video' AS modality, content_key(video_vector) AS content_key, video_vector AS vector
FROM items
WHERE content_key(video_vector) IS NOT NULL
