-- one row per visible night: which Delta version of each table holds it, for readers of any kind
WITH nights AS (
    SELECT run_date, generation, made_visible_at, model_version, table_versions
    FROM runs WHERE kind IN ('night', 'erase')
),
-- A rollback hides one generation of its date; an erasure or an expiry all earlier ones.
hidden AS (
    SELECT n.run_date, n.generation
    FROM nights AS n
    JOIN runs AS r ON r.run_date = n.run_date AND r.generation > n.generation
    WHERE (r.kind = 'rollback' AND r.hides_generation = n.generation) OR r.kind IN ('erase', 'expire')
),
shown AS (
    SELECT n.run_date, max(n.generation) AS generation
    FROM nights AS n
    LEFT ANTI JOIN hidden AS h ON h.run_date = n.run_date AND h.generation = n.generation
    GROUP BY n.run_date
),
final AS (
    SELECT n.run_date, n.generation, n.made_visible_at, n.model_version, n.table_versions
    FROM nights AS n
    JOIN shown AS s ON s.run_date = n.run_date AND s.generation = n.generation
)
SELECT run_date, generation, made_visible_at, model_version, table_versions FROM final ORDER BY run_date
