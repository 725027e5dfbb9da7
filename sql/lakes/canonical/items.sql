-- one row per item_id of the catalogue
SELECT
    item_id, -- item of the catalogue
    title, -- title, as customers read it
    category, -- category, one per item
    brand, -- brand or vendor
    price, -- current price of one unit
    image_vector, -- encoded picture
    video_vector, -- encoded video
    video_frames, -- encoded frames of the video, in order
    image, -- the picture's file: JPEG, PNG or WebP
    _file -- file of the row
FROM raw_items
