-- one row per as_of of which two files hold the same inventory rows: one snapshot that was loaded twice
-- Rows are hashed only of days that several files have: usually none.
WITH days_of_files AS (
    SELECT as_of FROM lake_inventory GROUP BY as_of HAVING min(_file) <> max(_file)
),
rows_of_files AS (
    SELECT
        lake_inventory.as_of,
        _file,
        md5(concat_ws('|', item_id, on_hand, on_order, lead_time_days, pack_size, min_order_quantity, unit_cost, service_level))
            AS row_hash
    FROM days_of_files JOIN lake_inventory ON lake_inventory.as_of = days_of_files.as_of
),
files AS (
    SELECT as_of, _file, count(*) AS row_count, min(row_hash) AS first_hash, max(row_hash) AS last_hash
    FROM rows_of_files
    GROUP BY as_of, _file
)
SELECT as_of, min(_file) AS first_file, max(_file) AS second_file
FROM files
GROUP BY as_of, row_count, first_hash, last_hash
HAVING count(*) > 1
ORDER BY as_of
