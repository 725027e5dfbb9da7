-- one row per bad event of the lake's files: its file, the reason, and the row as JSON with a masked user_id
SELECT source_file, reason, row_json FROM unit_quarantine
