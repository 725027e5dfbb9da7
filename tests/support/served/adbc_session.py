"""Uses a server of Arrow Flight SQL as a Python program does, with ADBC. It needs the tables `intent` and `runs`.

Usage: adbc_session.py HOST PORT. Prints one line of JSON; exits with 1 and a message where an expectation fails.
"""

import datetime
import os
import sys
import threading
import time

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import pyarrow as pa

from expectations import attempt, expect, report, same

HOST, PORT = sys.argv[1], sys.argv[2]
URI = f"grpc://{HOST}:{PORT}"
TOP = "SELECT user_id, run_date, p_purchase FROM intent ORDER BY p_purchase DESC, user_id LIMIT 20"
LONG_QUERY = "SELECT count(*) FROM generate_series(1, 100000000000)"
WRITTEN = "/tmp/intentcast-served-flight"


def connect(**options):
    # The server is read-only and has no transactions to switch off.
    return flight_sql.connect(URI, autocommit=True, **options)


def fetch(conn, sql, parameters=None):
    with conn.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def failure_of(run):
    try:
        run()
    # While rows are read, pyarrow raises its own error.
    except (adbc_driver_manager.Error, pa.ArrowException) as failure:
        return failure
    return None


def status_of(failure):
    """ADBC's name of the status code of a failure."""
    return failure.status_code.name if isinstance(failure, adbc_driver_manager.Error) else type(failure).__name__


def queries(conn):
    """Rows and types of results."""
    top = fetch(conn, TOP)
    expect(0 < top.num_rows <= 20, f"rows of intent: expected 1 to 20, found {top.num_rows}")
    expect(fetch_unprepared(conn, TOP).equals(top), "rows of a query that is not prepared: expected the same rows")
    kinds = {field.name: str(field.type) for field in top.schema}
    same("columns of intent", list(kinds), ["user_id", "run_date", "p_purchase"])
    expect(kinds["user_id"] in ("string", "large_string", "string_view"), f"type of user_id: found {kinds['user_id']}")
    same("types of run_date and p_purchase", [kinds["run_date"], kinds["p_purchase"]], ["date32[day]", "double"])
    same("columns of nothing", fetch(conn, f"SELECT * FROM ({TOP}) AS t WHERE false").schema.names, list(kinds))
    numbers = fetch(conn, "SELECT * FROM generate_series(1, 300000)")
    same("rows of a long result", numbers.num_rows, 300_000)
    with conn.cursor() as cursor:
        cursor.execute("SELECT 1 AS a, 'ü的' AS b, NULL AS c, true AS d, 0.5 AS e")
        same("names of a description", [column[0] for column in cursor.description], ["a", "b", "c", "d", "e"])
        same("a row of DB-API", cursor.fetchone(), (1, "ü的", None, True, 0.5))
        same("after the last row", cursor.fetchone(), None)
        cursor.execute(TOP)
        same("fetchmany", len(cursor.fetchmany(5)), min(5, top.num_rows))
        same("fetchall after it", len(cursor.fetchall()), max(top.num_rows - 5, 0))
        cursor.execute("SELECT * FROM generate_series(1, 100000)")
        reader = cursor.fetch_record_batch()
        batches = [batch.num_rows for batch in reader]
        same("rows of all batches", sum(batches), 100_000)
        cursor.execute(TOP)
        same("rows of a frame of pandas", len(cursor.fetch_df()), top.num_rows)
        cursor.execute(TOP)
        same("rows of a frame of polars", cursor.fetch_polars().height, top.num_rows)
        schema = cursor.adbc_execute_schema("SELECT user_id FROM intent")
        same("schema without a run", schema.names, ["user_id"])
        partitions = attempt(lambda: read_partitions(conn, cursor), (adbc_driver_manager.Error,))
    count = fetch(conn, "SELECT count(*) AS n FROM tables.intent")["n"][0].as_py()
    return {"top": top.to_pylist(), "types": kinds, "tables_intent": count, "batches": len(batches), "partitions": partitions,
            "all_types": {field.name: str(field.type) for field in fetch(conn, "SELECT * FROM tables.intent LIMIT 1").schema}}


def read_partitions(conn, cursor):
    """Reads the endpoints of a query on their own, as workers of a cluster do."""
    partitions, _ = cursor.adbc_execute_partitions("SELECT * FROM generate_series(1, 1000)")
    rows = 0
    with connect() as worker, worker.cursor() as reader:
        for partition in partitions:
            reader.adbc_read_partition(partition)
            rows += reader.fetch_arrow_table().num_rows
    same("rows of all partitions", rows, 1000)
    return len(partitions)


def catalogue(conn):
    """Catalogues, schemas, tables and columns, at each depth."""
    found = {}
    for depth in ("catalogs", "db_schemas", "tables", "all"):
        objects = conn.adbc_get_objects(depth=depth).read_all().to_pylist()
        expect(objects, f"objects of depth {depth}: expected a catalogue, found none")
        found[depth] = objects
    schemas = {schema["db_schema_name"] for one in found["db_schemas"] for schema in one["catalog_db_schemas"] or []}
    expect("tables" in schemas, f"schemas: expected `tables` among them, found {schemas}")

    def tables_of(objects, schema):
        return [table for one in objects for each in one["catalog_db_schemas"] or [] if each["db_schema_name"] == schema
                for table in each["db_schema_tables"] or []]

    tables = tables_of(found["tables"], "tables")
    names = {table["table_name"]: table["table_type"] for table in tables}
    expect({"intent", "runs"} <= set(names), f"tables: expected `intent` and `runs` among them, found {list(names)}")
    every = tables_of(found["all"], "tables")
    intent = next(table for table in every if table["table_name"] == "intent")
    columns = [column["column_name"] for column in intent["table_columns"]]
    expect({"user_id", "run_date", "p_purchase"} <= set(columns), f"columns of intent: found {columns}")
    one = conn.adbc_get_objects(
        depth="all", db_schema_filter="tables", table_name_filter="int_nt", column_name_filter="p\\_purch%").read_all().to_pylist()
    filtered = tables_of(one, "tables")
    same("tables of a pattern", [table["table_name"] for table in filtered], ["intent"])
    none = conn.adbc_get_objects(depth="tables", table_name_filter="no such table").read_all().to_pylist()
    same("tables of another pattern", tables_of(none, "tables"), [])
    kinds = conn.adbc_get_table_types()
    expect(set(names.values()) <= set(kinds), f"table types: expected {set(names.values())} among them, found {kinds}")
    only = conn.adbc_get_objects(depth="tables", table_types_filter=[names["intent"]]).read_all().to_pylist()
    expect("intent" in [table["table_name"] for table in tables_of(only, "tables")], "tables of a type: expected intent")
    schema = conn.adbc_get_table_schema("intent", db_schema_filter="tables")
    same("columns of adbc_get_table_schema", schema.names, columns)
    same("type of p_purchase", schema.field("p_purchase").type, pa.float64())
    failure = failure_of(lambda: conn.adbc_get_table_schema("no_such_table", db_schema_filter="tables"))
    expect(failure is not None, "schema of an unknown table: expected an error, found none")
    return {
        "catalogs": [one["catalog_name"] for one in found["catalogs"]],
        "schemas": sorted(schemas, key=str),
        "tables": names,
        "table_types": kinds,
        "columns": columns,
        "schema": {field.name: str(field.type) for field in schema},
        "comments": {name.decode(): value.decode() for name, value in (schema.field("user_id").metadata or {}).items()},
        "current": [attempt(lambda: conn.adbc_current_catalog), attempt(lambda: conn.adbc_current_db_schema)],
        "unknown_table": status_of(failure),
    }


def prepared(conn):
    """Prepared statements with bound parameters; several rows of parameters are several runs."""
    top = fetch(conn, TOP).to_pylist()
    user, day = top[0]["user_id"], top[0]["run_date"]
    with conn.cursor() as cursor:
        by_user = "SELECT user_id, p_purchase FROM intent WHERE user_id = $1 AND run_date = $2"
        found = []
        for key in (user, "no such user", user):
            cursor.execute(by_user, (key, day))
            found.append([row[0] for row in cursor.fetchall()])
        same("rows by parameters", found, [[user], [], [user]])
        described = attempt(lambda: str(cursor.adbc_prepare(by_user)).replace("\n", ", "))
        cases = [
            ("SELECT $1 + 1 AS a", 41, 42),
            ("SELECT CAST($1 AS DOUBLE) * 2 AS a", 0.25, 0.5),
            ("SELECT CAST($1 AS VARCHAR) AS a", "it's ü的", "it's ü的"),
            ("SELECT CAST($1 AS DATE) AS a", datetime.date(2024, 2, 29), datetime.date(2024, 2, 29)),
            ("SELECT CAST($1 AS BOOLEAN) AS a", False, False),
            ("SELECT CAST($1 AS VARCHAR) IS NULL AS a", None, True),
        ]
        for sql, value, expected in cases:
            cursor.execute(sql, (value,))
            same(f"{sql} with {value!r}", cursor.fetchone(), (expected,))
        bound = pa.record_batch({"1": pa.array([1], pa.int32())})
        cursor.execute("SELECT CAST($1 AS INT) AS a", bound)
        same("a record batch as parameters", cursor.fetchone(), (1,))
        marks = attempt(lambda: cursor.execute("SELECT CAST(? AS INT) AS a", (7,)).fetchone(), (adbc_driver_manager.Error,))
        failure = failure_of(lambda: cursor.execute("SELECT CAST($1 AS INT) + CAST($2 AS INT)", (1,)).fetchall())
        expect(failure is not None, "one parameter of two: expected an error, found none")
    return {"described": described, "question_mark": marks, "too_few": status_of(failure)}


def errors(conn):
    """Errors have a status code and the server's message; a good query follows."""
    cases = {
        "syntax": "SELEC 1",
        "unknown table": "SELECT * FROM no_such_table",
        "unknown column": "SELECT no_such_column FROM intent",
        "while running": "SELECT CAST(kind AS INT) FROM tables.runs",
        "insert": "INSERT INTO tables.runs (kind) VALUES ('night')",
        "create": "CREATE TABLE made (a INT)",
        "create as": "CREATE TABLE made AS SELECT 1 AS a",
        "create view": "CREATE VIEW made AS SELECT 1 AS a",
        "external": "CREATE EXTERNAL TABLE made STORED AS CSV LOCATION '/etc/passwd'",
        "drop": "DROP TABLE tables.intent",
        "delete": "DELETE FROM tables.intent",
        "copy": f"COPY (SELECT 1 AS a) TO '{WRITTEN}' STORED AS CSV",
        "copy of a table": f"COPY intent TO '{WRITTEN}'",
        "two statements": "SELECT 1; DROP TABLE tables.intent",
    }
    found = {}
    for name, sql in cases.items():
        for run in (fetch, fetch_unprepared, update, update_prepared):
            failure = failure_of(lambda: run(conn, sql))
            expect(failure is not None, f"{name}: expected an error from {run.__name__}, found none: {sql}")
            expect(str(failure).strip(), f"{name}: expected a message, found none")
            expect(not os.path.exists(WRITTEN), f"{name}: expected no file {WRITTEN}, found one: {sql}")
            same(f"a query after {name}", fetch(conn, "SELECT 1 AS a").to_pylist(), [{"a": 1}])
            found[f"{name}, {run.__name__}"] = [status_of(failure), str(failure).split("\n")[0][:200]]
    ingested = failure_of(lambda: ingest(conn))
    expect(ingested is not None, "adbc_ingest: expected a refusal, found none")
    return found | {"ingest": [status_of(ingested), str(ingested).split("\n")[0][:200]]}


def fetch_unprepared(conn, sql):
    """Runs a query without a prepared statement (CommandStatementQuery); DB-API's execute always prepares."""
    with conn.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(sql)
        stream, _ = cursor.adbc_statement.execute_query()
        return pa.RecordBatchReader._import_from_c(stream.address).read_all()


def update(conn, sql):
    """Runs a statement as one that returns no rows (CommandStatementUpdate)."""
    with conn.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(sql)
        cursor.adbc_statement.execute_update()


def update_prepared(conn, sql):
    """Prepares a statement and runs it as one that returns no rows (CommandPreparedStatementUpdate)."""
    with conn.cursor() as cursor:
        cursor.executemany(sql, None)


def ingest(conn):
    with conn.cursor() as cursor:
        cursor.adbc_ingest("made", pa.table({"a": [1]}), mode="create")


def cancels():
    """A cancel from another thread ends a query; the connection answers afterwards."""
    with connect() as conn:
        waits = []
        with conn.cursor() as cursor:
            timer = threading.Timer(1.0, cursor.adbc_cancel)
            started = time.monotonic()
            timer.start()
            failure = failure_of(lambda: cursor.execute(LONG_QUERY).fetchall())
            waits.append(round(time.monotonic() - started, 1))
            timer.join()
            expect(failure is not None, "a cancelled query: expected an error, found none")
            expect(waits[0] < 10, f"a cancelled query: expected an end within 10 s, found {waits[0]} s")
        same("a query after a cancel", fetch(conn, "SELECT 1 AS a").to_pylist(), [{"a": 1}])
    limits = {"adbc.flight.sql.rpc.timeout_seconds.query": "1.0", "adbc.flight.sql.rpc.timeout_seconds.fetch": "1.0",
              "adbc.flight.sql.rpc.timeout_seconds.update": "1.0"}
    with connect(conn_kwargs=limits) as conn:
        started = time.monotonic()
        late = failure_of(lambda: fetch(conn, LONG_QUERY))
        waits.append(round(time.monotonic() - started, 1))
        expect(late is not None, "a query over its time: expected an error, found none")
        expect(waits[1] < 10, f"a query over its time: expected an end within 10 s, found {waits[1]} s")
        same("a query after a time limit", fetch(conn, "SELECT 1 AS a").to_pylist(), [{"a": 1}])
    return {"waits": waits, "cancelled": status_of(failure), "late": status_of(late)}


def abandons():
    """A reader that is closed early leaves a connection that answers."""
    with connect() as conn:
        with conn.cursor() as cursor:
            cursor.execute("SELECT * FROM generate_series(1, 50000000)")
            reader = cursor.fetch_record_batch()
            expect(next(reader).num_rows > 0, "first batch of a long result: expected rows, found none")
            reader.close()
        same("a query after an early close", fetch(conn, "SELECT 1 AS a").to_pylist(), [{"a": 1}])


def many_connections():
    """Ten connections at once, each with its own answers."""
    found = {}

    def ask(number):
        with connect() as conn:
            for turn in range(5):
                found[number, turn] = fetch(conn, f"SELECT {number * 100 + turn} AS a")["a"][0].as_py() == number * 100 + turn

    threads = [threading.Thread(target=ask, args=[number]) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same("good answers of 10 connections", sum(found.values()), 50)


def transactions():
    """Asks for a transaction, as ADBC does by default; the server may refuse."""
    def run():
        with flight_sql.connect(URI) as conn:
            rows = fetch(conn, "SELECT 1 AS a").to_pylist()
            conn.rollback()
            return rows

    return attempt(run, (adbc_driver_manager.Error,))


def session():
    if os.path.exists(WRITTEN):
        os.remove(WRITTEN)
    with connect() as conn:
        summary = {"info": {str(name): value for name, value in conn.adbc_get_info().items()}}
        expect(summary["info"].get("vendor_name"), f"get_info: expected vendor_name, found {summary['info']}")
        summary["queries"] = queries(conn)
        summary["catalogue"] = catalogue(conn)
        summary["prepared"] = prepared(conn)
        summary["errors"] = errors(conn)
    # A name and a password do no harm where the server asks for none.
    named = {"username": "anyone", "password": "secret"}
    summary["with a password"] = attempt(lambda: connect_as(named), (adbc_driver_manager.Error,))
    summary["transactions"] = transactions()
    summary["cancels"] = cancels()
    abandons()
    many_connections()
    return summary


def connect_as(options):
    with connect(db_kwargs=options) as conn:
        return fetch(conn, "SELECT 1 AS a").to_pylist()


report(session)
