-- one row per bad row of the lake's files: its view and file, the reason, and the row as JSON with a masked user_id
SELECT 'events' AS view, source_file, reason, column_name, row_json FROM unit_quarantine WHERE reason <> 'erased_user'
UNION ALL
SELECT view, source_file, reason, column_name, row_json FROM master_quarantine
