-- one row per view, reason and column of the night's bad rows
SELECT "view", reason, column_name, count(*) AS rows
FROM quarantine
GROUP BY "view", reason, column_name
ORDER BY rows DESC, "view", reason, column_name
