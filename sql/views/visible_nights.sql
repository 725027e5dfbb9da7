-- one row per visible night: which Delta version of each table holds it, for readers of any kind
WITH nights AS (
    SELECT run_date, generation, made_visible_at, model_version, table_versions
    FROM runs WHERE kind IN ('night', 'erase')
),
-- A rollback hides one generation of its date; an erasure or an expiry hides all earlier ones.
hidden AS (
    SELECT nights.run_date, nights.generation
    FROM nights JOIN runs ON runs.run_date = nights.run_date AND runs.generation > nights.generation
    WHERE (runs.kind = 'rollback' AND runs.hides_generation = nights.generation) OR runs.kind IN ('erase', 'expire')
),
shown AS (
    SELECT nights.run_date, max(nights.generation) AS generation
    FROM nights LEFT ANTI JOIN hidden ON hidden.run_date = nights.run_date AND hidden.generation = nights.generation
    GROUP BY nights.run_date
)
SELECT nights.*
FROM nights JOIN shown ON shown.run_date = nights.run_date AND shown.generation = nights.generation
ORDER BY nights.run_date
