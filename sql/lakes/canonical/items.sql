-- one row per item_id of the catalogue
SELECT item_id, title, category, brand, price, image_vector, video_vector, video_frames, image, _file FROM raw_items
