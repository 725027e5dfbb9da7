-- check (stops the night): one row per table whose number of rows does not fit the users to be scored
WITH users AS (
    SELECT count(DISTINCT user_id) AS users FROM feature_users
),
scored AS (
    SELECT count(*) AS scored FROM intent
)
SELECT
    'rows of intent' AS subject,
    concat('at most one for each of ', users, ' users, and at least one if there are any') AS expected,
    CAST(scored AS VARCHAR) AS got
FROM users CROSS JOIN scored
WHERE scored > users OR (users > 0 AND scored = 0)
