-- one row per bad event of the lake's files: source, reason, the row as JSON with masked ids
SELECT source_file, reason, row_json FROM unit_quarantine
