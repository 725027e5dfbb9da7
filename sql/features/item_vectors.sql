-- one row per content_key and row of the catalogue: the vectors that the lake supplies
-- A picture has one vector, a video one per frame.
SELECT
    'image' AS modality,
    coalesce(content_key(image), content_key(image_vector)) AS content_key,
    make_array(image_vector) AS vectors
FROM item_rows
WHERE content_key(image_vector) IS NOT NULL
UNION ALL
SELECT 'video' AS modality, content_key(video_frames) AS content_key, video_frames AS vectors
FROM item_rows
WHERE content_key(video_frames) IS NOT NULL
UNION ALL
SELECT 'video' AS modality, content_key(video_vector) AS content_key, make_array(video_vector) AS vectors
FROM item_rows
WHERE content_key(video_vector) IS NOT NULL AND content_key(video_frames) IS NULL
