-- What database tools ask of a PostgreSQL server when they connect and when they list tables: our own statements with the functions,
-- tables, columns and constructs that the start-up queries of DBeaver, Metabase, Grafana and their like use. Each is one statement,
-- separated by a line "-- next".
-- next
SELECT version(), current_database(), current_schema(), current_user
-- next
SHOW search_path
-- next
SHOW transaction_isolation
-- next
SHOW server_version
-- next
SET extra_float_digits = 3
-- next
SET application_name = 'a tool'
-- next
SET client_min_messages TO 'warning'
-- next
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
-- next
SELECT current_setting('server_version_num')::int / 100 AS version
-- next
SELECT name, setting FROM pg_catalog.pg_settings WHERE name = 'max_index_keys'
-- next
SELECT db.oid, db.* FROM pg_catalog.pg_database AS db WHERE datallowconn AND NOT datistemplate ORDER BY db.datname
-- next
SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_description AS d ON d.objoid = n.oid AND d.objsubid = 0 ORDER BY nspname
-- next
SELECT t.oid, t.*, c.relkind, format_type(nullif(t.typbasetype, 0), t.typtypmod) AS base_type, d.description
FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
LEFT JOIN pg_catalog.pg_description AS d ON t.oid = d.objoid WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c')
-- next
SELECT t.typname, t.typinput = 'array_in'::regproc AS is_array, t.typtype, t.oid FROM pg_catalog.pg_type AS t WHERE t.oid = 1043
-- next
SELECT c.oid, c.*, d.description, pg_get_expr(c.relpartbound, c.oid) AS partition, pg_get_partkeydef(c.oid) AS partition_key
FROM pg_catalog.pg_class AS c LEFT JOIN pg_catalog.pg_description AS d ON d.objoid = c.oid AND d.objsubid = 0
WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'tables') AND c.relkind NOT IN ('i', 'I', 'c')
-- next
SELECT c.relname, a.*, pg_get_expr(ad.adbin, ad.adrelid, true) AS default_value, d.description, dep.objid
FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON a.attrelid = c.oid
LEFT JOIN pg_catalog.pg_attrdef AS ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum
LEFT JOIN pg_catalog.pg_description AS d ON c.oid = d.objoid AND a.attnum = d.objsubid
LEFT JOIN pg_catalog.pg_depend AS dep ON dep.refobjid = a.attrelid AND dep.deptype = 'i' AND dep.refobjsubid = a.attnum
WHERE NOT a.attisdropped AND c.relname = 'intent' ORDER BY a.attnum
-- next
SELECT con.oid, con.conname, con.xmin, ARRAY(SELECT unnest(con.conkey)) AS keys FROM pg_catalog.pg_constraint AS con
-- next
SELECT i.*, i.indkey AS keys, c.relname, c.relam, pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = 16400
-- next
SELECT p.oid, p.proname, p.xmin, pg_get_function_result(p.oid), n.nspname FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE pg_function_is_visible(p.oid) AND n.nspname = 'tables'
-- next
SELECT rolname, rolsuper, rolcanlogin, shobj_description(oid, 'pg_authid') FROM pg_catalog.pg_roles
-- next
SELECT usename, usesuper FROM pg_catalog.pg_user
-- next
SELECT pid, state, query FROM pg_catalog.pg_stat_activity WHERE state = 'active'
-- next
SELECT locktype, granted FROM pg_catalog.pg_locks
-- next
SELECT pg_database_size('intentcast'), pg_is_in_recovery(), age(xmin), pg_postmaster_start_time() IS NOT NULL FROM pg_catalog.pg_database LIMIT 1
-- next
SELECT tc.table_schema, tc.table_name, kcu.column_name FROM information_schema.table_constraints AS tc
JOIN information_schema.key_column_usage AS kcu ON tc.constraint_name = kcu.constraint_name WHERE tc.constraint_type = 'PRIMARY KEY'
-- next
SELECT column_name, data_type, udt_name, is_identity FROM information_schema.columns WHERE table_schema = 'tables' AND table_name = 'demand'
-- next
SELECT quote_ident(table_name) AS "table" FROM information_schema.tables
WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache') ORDER BY 1
-- next
SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname NOT LIKE 'pg/_%' ESCAPE '/' AND nspname <> 'information_schema'
-- next
SELECT c.relname, CASE WHEN c.relhasrules THEN (SELECT max(r.rulename) FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid) END AS rule
FROM pg_catalog.pg_class AS c WHERE c.relname = 'intent'
-- next
SELECT viewname, pg_get_viewdef(c.oid, true) FROM pg_catalog.pg_views AS v JOIN pg_catalog.pg_class AS c ON c.relname = v.viewname
-- next
SELECT 1 FROM information_schema.character_sets
-- next
BEGIN
-- next
SELECT TRUE AS "_" FROM tables.intent WHERE 1 <> 1 LIMIT 0
-- next
DISCARD ALL
-- next
DEALLOCATE ALL
