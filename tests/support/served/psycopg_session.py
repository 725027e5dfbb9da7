"""Uses a server of the PostgreSQL protocol as a Python program does, with psycopg 3. It needs the tables `intent` and `runs`.

Usage: psycopg_session.py HOST PORT. Prints one line of JSON; exits with 1 and a message where an expectation fails.
"""

import datetime
import decimal
import os
import sys
import threading
import time

import psycopg
from psycopg.pq import TransactionStatus

from expectations import attempt, expect, report, same

HOST, PORT = sys.argv[1], int(sys.argv[2])
LONG_QUERY = "SELECT count(*) FROM generate_series(1, 100000000000)"
MULTIPLYING_QUERY = "SELECT sum(a.value % b.value) FROM generate_series(1, 1000000) a, generate_series(1, 1000000000) b"
COLUMNS = "user_id, run_date, p_purchase"
WRITTEN = "/tmp/intentcast-served-copy"


def connect(user="anyone", database="anything", **options):
    return psycopg.connect(host=HOST, port=PORT, user=user, dbname=database, connect_timeout=10, **options)


def failure_of(run):
    """The error that a statement ends with."""
    try:
        run()
    except psycopg.Error as failure:
        return failure
    return None


def connections():
    """Any user may connect to any database; the server says its version and encoding."""
    with connect(user="another one", database="night of today", application_name="a test", autocommit=True) as other:
        same("SELECT 1 as another user", other.execute("SELECT 1").fetchall(), [(1,)])
    with connect(sslmode="disable", gssencmode="disable", autocommit=True) as plain:
        same("SELECT 1 without asking for TLS", plain.execute("SELECT 1").fetchall(), [(1,)])
        info = plain.info
        expect(info.server_version >= 90_600, f"server_version: expected 9.6 or newer, found {info.server_version}")
        same("client encoding", info.encoding, "utf-8")
        same("standard_conforming_strings", info.parameter_status("standard_conforming_strings"), "on")
        same("integer_datetimes", info.parameter_status("integer_datetimes"), "on")
        return {"server_version": info.server_version, "time_zone": info.parameter_status("TimeZone")}


def simple_queries(conn):
    """Queries as one text, several results of one text, an empty query and comments."""
    same("two columns", conn.execute("SELECT 1 AS a, 'x' AS b").fetchall(), [(1, "x")])
    cursor = conn.execute("SELECT 1; SELECT 2, 3; SELECT 'c'")
    results = [cursor.fetchall()]
    while cursor.nextset():
        results.append(cursor.fetchall())
    same("three statements in one text", results, [[(1,)], [(2, 3)], [("c",)]])
    for empty in ("", ";", "-- nothing"):
        same(f"status of the empty query {empty!r}", conn.execute(empty).pgresult.status, psycopg.pq.ExecStatus.EMPTY_QUERY)
    cursor = psycopg.ClientCursor(conn)
    cursor.execute("SELECT %s, %s", ["it's; \\ 100% ünïcode 的", None])
    same("values bound by the client", cursor.fetchall(), [("it's; \\ 100% ünïcode 的", None)])
    cursor = conn.execute(f"SELECT {COLUMNS} FROM tables.intent ORDER BY run_date, user_id LIMIT 3")
    same("status of a SELECT", cursor.statusmessage, "SELECT 3")
    nothing = conn.execute(f"SELECT {COLUMNS} FROM intent WHERE false")
    same("rows of nothing", nothing.fetchall(), [])
    same("columns of nothing", [column.name for column in nothing.description], ["user_id", "run_date", "p_purchase"])


def types(conn):
    """Values of each type, the same as text and as binary values."""
    constants = {
        "int2": ("1::smallint", 1),
        "int4": ("-2::int", -2),
        "int8": ("9007199254740993::bigint", 9_007_199_254_740_993),
        "float4": ("0.5::real", 0.5),
        "float8": ("0.1::double precision", 0.1),
        "text": ("'ü的'::text", "ü的"),
        "bool": ("true", True),
        "date": ("DATE '2024-02-29'", datetime.date(2024, 2, 29)),
        "early_date": ("DATE '1969-12-31'", datetime.date(1969, 12, 31)),
        "timestamp": ("TIMESTAMP '2024-02-29 12:34:56.789012'", datetime.datetime(2024, 2, 29, 12, 34, 56, 789012)),
        "numeric": ("-123.4500::numeric(10, 4)", decimal.Decimal("-123.4500")),
        "null": ("NULL::bigint", None),
    }
    query = "SELECT " + ", ".join(f"{sql} AS {name}" for name, (sql, _) in constants.items())
    oids = {}
    for binary in (False, True):
        cursor = conn.cursor(binary=binary)
        row = cursor.execute(query).fetchone()
        for column, value, (name, (_, expected)) in zip(cursor.description, row, constants.items(), strict=True):
            same(f"value of {name}, binary={binary}", value, expected)
            same(f"Python's type of {name}, binary={binary}", type(value), type(expected))
            oids[name] = same(f"type of {name}, binary={binary}", column.type_code, oids.get(name, column.type_code))
    expected = {"int2": 21, "int4": 23, "int8": 20, "float4": 700, "float8": 701, "text": 25, "bool": 16, "date": 1082}
    same("type numbers", {name: oids[name] for name in expected}, expected)
    for binary in (False, True):
        for value, expected in (("nan", "nan"), ("infinity", "inf"), ("-infinity", "-inf")):
            found = conn.cursor(binary=binary).execute(f"SELECT '{value}'::double precision").fetchone()[0]
            same(f"{value}, binary={binary}", str(found), expected)
    return oids


def parameters(conn):
    """Parameters of each type, in text and in binary form."""
    day = datetime.date(2024, 2, 29)
    moment = datetime.datetime(2024, 2, 29, 12, 34, 56, 789012)
    cases = [
        ("SELECT {}::int + 1", 41, 42),
        ("SELECT {}::bigint", 2**40, 2**40),
        ("SELECT {}::double precision * 2", 0.25, 0.5),
        ("SELECT {}::text", "it's ünïcode 的", "it's ünïcode 的"),
        ("SELECT {}::text", "", ""),
        ("SELECT {}::date", day, day),
        ("SELECT {}::timestamp", moment, moment),
        ("SELECT {}::bool", False, False),
        ("SELECT NOT {}::bool", False, True),
        ("SELECT {}::numeric(10, 2)", decimal.Decimal("12.34"), decimal.Decimal("12.34")),
        ("SELECT {}::int", None, None),
        ("SELECT {}::text IS NULL", None, True),
        ("SELECT upper({})", "abc", "ABC"),
        ("SELECT 1 WHERE 2 > {}", 1, 1),
        ("SELECT 'x' LIMIT {}", 1, "x"),
    ]
    for mark in ("%s", "%t", "%b"):
        for query, value, expected in cases:
            if mark == "%b" and isinstance(value, str) and "::" not in query:
                continue
            found = conn.execute(query.format(mark), [value]).fetchone()
            same(f"{query.format(mark)} with {value!r}", found, (expected,))
    found = conn.execute("SELECT %(a)s::int + %(b)s::int * %(a)s::int", {"a": 2, "b": 3}).fetchone()
    same("a parameter used twice", found, (8,))
    return len(cases) * 3


def tables(conn):
    """Rows of the published tables, by parameters as an application asks for them."""
    cursor = conn.execute(f"SELECT {COLUMNS} FROM intent ORDER BY p_purchase DESC, user_id LIMIT 20")
    top = cursor.fetchall()
    columns = [[column.name, column.type_code] for column in cursor.description]
    expect(top, "intent: expected rows, found none")
    same("types of intent", [code for _, code in columns], [25, 1082, 701])
    user, day, likely = top[0]
    query = f"SELECT {COLUMNS} FROM tables.intent WHERE user_id = %s AND run_date = %s"
    same("the row of one user", conn.execute(query, [user, day]).fetchall(), [top[0]])
    same("the row of one user, binary", conn.cursor(binary=True).execute(query, [user, day]).fetchall(), [top[0]])
    same("rows of an unknown user", conn.execute(query, ["no such user' OR 'a' = 'a", day]).fetchall(), [])
    same("rows of a null user", conn.execute(query, [None, day]).fetchall(), [])
    least = conn.execute("SELECT count(*) FROM intent WHERE p_purchase >= %s", [likely]).fetchone()[0]
    expect(least >= 1, f"rows of at least {likely}: expected 1 or more, found {least}")
    several = [row[0] for row in top[:3]]
    listed = "SELECT count(*) FROM intent WHERE user_id IN (%s, %s, %s)"
    same("rows of a list", conn.execute(listed, (several * 3)[:3]).fetchone()[0], len(set(several)))
    array = attempt(lambda: conn.execute("SELECT count(*) FROM intent WHERE user_id = ANY(%s)", [several]).fetchone()[0])
    return {
        "top": top,
        "columns": columns,
        "all_columns": [column.name for column in conn.execute("SELECT * FROM tables.intent LIMIT 0").description],
        "intent": conn.execute("SELECT count(*) FROM intent").fetchone()[0],
        "tables_intent": conn.execute("SELECT count(*) FROM tables.intent").fetchone()[0],
        "runs": conn.execute("SELECT count(*) FROM tables.runs").fetchone()[0],
        "run_dates": [row[0] for row in conn.execute("SELECT DISTINCT run_date FROM tables.runs ORDER BY 1").fetchall()],
        "any_of_array": array,
    }


def prepared(conn):
    """Named statements on the server: used again, with other values, many of them, closed as new ones come."""
    query = "SELECT %s::int + 1"
    for number in (1, 2, 3, 2**30):
        same("a prepared statement", conn.execute(query, [number], prepare=True).fetchone(), (number + 1,))
    same("the same with binary results", conn.cursor(binary=True).execute(query, [7], prepare=True).fetchone(), (8,))
    user = conn.execute("SELECT user_id FROM intent ORDER BY user_id LIMIT 1").fetchone()[0]
    by_user = "SELECT count(*) FROM intent WHERE user_id = %s"
    counts = [conn.execute(by_user, [key], prepare=True).fetchone()[0] for key in (user, "no such user", None, user)]
    same("a prepared statement over intent", counts, [1, 0, 0, 1])
    kept, conn.prepared_max = conn.prepared_max, 2
    for number in range(10):
        same("one of many", conn.execute(f"SELECT {number} + %s::int", [1], prepare=True).fetchone(), (number + 1,))
    conn.prepared_max = kept
    with conn.pipeline():
        cursors = [conn.execute("SELECT %s::int * 2", [number]) for number in range(20)]
    same("a pipeline", [cursor.fetchone()[0] for cursor in cursors], [2 * number for number in range(20)])
    with connect(autocommit=True) as piped:
        failure = failure_of(lambda: run_broken_pipeline(piped))
        expect(failure is not None, "a pipeline with a bad statement: expected an error, found none")
        same("a query after a broken pipeline", piped.execute("SELECT 1").fetchone(), (1,))


def run_broken_pipeline(conn):
    with conn.pipeline() as pipeline:
        conn.execute("SELECT 1")
        conn.execute("SELECT no_such_column FROM intent")
        conn.execute("SELECT 2")
        pipeline.sync()


def copies(conn):
    """COPY of a query to the client: as rows, as text with special characters, as CSV."""
    query = f"SELECT {COLUMNS} FROM tables.intent ORDER BY run_date, user_id LIMIT 50"
    expected = conn.execute(query).fetchall()
    cursor = conn.cursor()
    with cursor.copy(f"COPY ({query}) TO STDOUT") as copy:
        copy.set_types(["text", "date", "float8"])
        same("rows of COPY", list(copy.rows()), expected)
    same("row count of COPY", cursor.rowcount, len(expected))
    special = "tab\\tline\\nback\\\\slash"
    with cursor.copy(f"COPY (SELECT E'{special}' AS a, NULL AS b, '' AS c) TO STDOUT") as copy:
        same("text of COPY", b"".join(copy), b"tab\\tline\\nback\\\\slash\t\\N\t\n")
    with cursor.copy("COPY (SELECT 1 AS a, 'x,\"y' AS b, NULL AS c) TO STDOUT WITH (FORMAT csv, HEADER true)") as copy:
        same("CSV of COPY", b"".join(copy), b'a,b,c\n1,"x,""y",\n')
    with cursor.copy("COPY (SELECT * FROM generate_series(1, 20000)) TO STDOUT") as copy:
        lines = sum(bytes(part).count(b"\n") for part in copy)
        same("lines of a long COPY", lines, 20_000)

    def binary():
        with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["text", "date", "float8"])
            return same("rows of a binary COPY", list(copy.rows()), expected) and len(expected)

    def table():
        with cursor.copy("COPY tables.runs TO STDOUT") as copy:
            return sum(bytes(part).count(b"\n") for part in copy)

    optional = {"binary": attempt(binary, (psycopg.Error,)), "of a table": attempt(table, (psycopg.Error,))}
    same("a query after COPY", conn.execute("SELECT 1").fetchone(), (1,))
    return {"rows": len(expected)} | optional


def cancels():
    """A client cancels from another thread; the connection answers afterwards."""
    waits = {}
    for name in ("cancel", "cancel_safe"):
        with connect(autocommit=True) as conn:
            started = time.monotonic()
            timer = threading.Timer(1.0, getattr(conn, name))
            timer.start()
            failure = failure_of(lambda: conn.execute(MULTIPLYING_QUERY if name == "cancel" else LONG_QUERY))
            waits[name] = round(time.monotonic() - started, 1)
            timer.join()
            expect(isinstance(failure, psycopg.errors.QueryCanceled), f"{name}: expected SQLSTATE 57014, found {failure!r}")
            expect(waits[name] < 10, f"{name}: expected an end within 10 s, found {waits[name]} s")
            same(f"a query after {name}", conn.execute("SELECT 1").fetchone(), (1,))
            conn.cancel_safe()
            same("a query after a cancel of nothing", conn.execute("SELECT 2").fetchone(), (2,))
    return waits


def abandons():
    """A client closes its socket during a long query; the server serves others."""
    conn = connect(autocommit=True)
    conn.pgconn.send_query(LONG_QUERY.encode())
    conn.pgconn.flush()
    time.sleep(0.5)
    conn.pgconn.finish()
    with connect(autocommit=True) as other:
        same("a query after an abandoned one", other.execute("SELECT 1").fetchone(), (1,))


def transactions():
    """Transactions as drivers begin and end them; an error inside one lasts until its end."""
    with connect() as conn:
        conn.execute("SELECT 1")
        same("status in a transaction", conn.info.transaction_status, TransactionStatus.INTRANS)
        conn.commit()
        same("status after COMMIT", conn.info.transaction_status, TransactionStatus.IDLE)
        failure = failure_of(lambda: conn.execute("SELECT no_such_column FROM intent"))
        expect(failure is not None, "an unknown column: expected an error, found none")
        same("status after an error", conn.info.transaction_status, TransactionStatus.INERROR)
        failed = failure_of(lambda: conn.execute("SELECT 1"))
        same("SQLSTATE within a failed transaction", failed and failed.sqlstate, "25P02")
        conn.rollback()
        same("a query after ROLLBACK", conn.execute("SELECT 1").fetchone(), (1,))
        conn.commit()
        conn.read_only = True
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        same("a query of a read-only transaction", conn.execute("SELECT 1").fetchone(), (1,))
        conn.rollback()
    with connect(autocommit=True) as conn:
        for begin, end in (("BEGIN", "COMMIT"), ("START TRANSACTION", "ROLLBACK"), ("BEGIN READ ONLY", "END")):
            conn.execute(begin)
            same(f"status after {begin}", conn.info.transaction_status, TransactionStatus.INTRANS)
            conn.execute("SELECT 1")
            conn.execute(end)
            same(f"status after {end}", conn.info.transaction_status, TransactionStatus.IDLE)
        with conn.transaction():
            conn.execute("SELECT 1")

        def savepoint():
            with conn.transaction():
                failure_of(lambda: broken_savepoint(conn))
                return conn.execute("SELECT 1").fetchone()[0]

        def portions():
            with conn.transaction(), conn.cursor(name="by portions") as cursor:
                cursor.execute("SELECT * FROM generate_series(1, 1000)")
                return len(cursor.fetchmany(10)) + len(cursor.fetchall())

        return {"savepoint": attempt(savepoint, (psycopg.Error,)), "named cursor": attempt(portions, (psycopg.Error,))}


def broken_savepoint(conn):
    with conn.transaction():
        conn.execute("SELECT no_such_column FROM intent")


def errors(conn):
    """Each error has the SQLSTATE of its kind, as a simple query and as a prepared one; a good query follows."""
    cases = {
        "syntax": ("SELEC 1", "42"),
        "unknown table": ("SELECT * FROM no_such_table", "42"),
        "unknown column": ("SELECT no_such_column FROM intent", "42"),
        "unknown function": ("SELECT no_such_function(1)", "42"),
        "division by zero": ("SELECT 1 / (generation - generation) FROM tables.runs", "22"),
        "bad cast": ("SELECT CAST(kind AS int) FROM tables.runs", "22"),
    }
    found = {}
    for name, (query, kind) in cases.items():
        for prepare in (False, True):
            failure = failure_of(lambda: conn.execute(query, [] if prepare else None, prepare=prepare))
            expect(failure is not None, f"{name}: expected an error, found none: {query}")
            expect(failure.sqlstate, f"{name}: expected an SQLSTATE, found none: {failure}")
            expect(failure.sqlstate.startswith(kind), f"{name}: expected SQLSTATE {kind}…, found {failure.sqlstate}: {failure}")
            expect(failure.diag.message_primary, f"{name}: expected a message, found none")
            found[name] = failure.sqlstate
            same(f"a query after {name}", conn.execute("SELECT 1").fetchone(), (1,))
    return found


def refusals(conn):
    """Statements that would change something are refused with an SQLSTATE, and change nothing."""
    statements = [
        "INSERT INTO tables.runs (kind) VALUES ('night')",
        "INSERT INTO intent SELECT * FROM intent",
        "UPDATE tables.runs SET kind = 'night'",
        "DELETE FROM tables.intent",
        "TRUNCATE tables.intent",
        "CREATE TABLE made (a int)",
        "CREATE TABLE made AS SELECT 1 AS a",
        "CREATE TABLE tables.made AS SELECT 1 AS a",
        "SELECT 1 AS a INTO made",
        "CREATE VIEW made AS SELECT 1 AS a",
        "CREATE OR REPLACE VIEW intent AS SELECT 1 AS a",
        "CREATE SCHEMA made",
        "CREATE DATABASE made",
        "CREATE EXTERNAL TABLE made STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION made(a int) RETURNS int RETURN a",
        "ALTER TABLE tables.intent ADD COLUMN made int",
        "DROP TABLE tables.intent",
        "DROP TABLE IF EXISTS tables.intent",
        "DROP VIEW intent",
        "DROP SCHEMA tables CASCADE",
        f"COPY (SELECT 1) TO '{WRITTEN}'",
        f"COPY tables.intent TO '{WRITTEN}'",
        f"COPY (SELECT 1 AS a) TO '{WRITTEN}' STORED AS CSV",
        f"COPY (SELECT 1) TO PROGRAM 'cat > {WRITTEN}'",
        "COPY tables.runs FROM STDIN",
        "COPY tables.runs FROM '/etc/passwd'",
        f"SELECT 1; COPY (SELECT 1) TO '{WRITTEN}'",
        "SELECT 1; DROP TABLE tables.intent",
        "EXPLAIN ANALYZE INSERT INTO tables.runs (kind) VALUES ('night')",
        f"EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '{WRITTEN}' STORED AS CSV",
    ]
    if os.path.exists(WRITTEN):
        os.remove(WRITTEN)
    names = "SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2"
    before = conn.execute("SELECT count(*) FROM tables.runs").fetchone(), conn.execute(names).fetchall()
    found = {}
    for statement in statements:
        for prepare in (False, True):
            failure = failure_of(lambda: conn.execute(statement, [] if prepare else None, prepare=prepare))
            expect(failure is not None, f"expected a refusal, found none: {statement}")
            expect(len(failure.sqlstate or "") == 5, f"expected an SQLSTATE, found {failure!r}: {statement}")
            expect(not os.path.exists(WRITTEN), f"expected no file {WRITTEN}, found one: {statement}")
            found[statement] = failure.sqlstate
            same(f"a query after {statement}", conn.execute("SELECT 1").fetchone(), (1,))
    after = conn.execute("SELECT count(*) FROM tables.runs").fetchone(), conn.execute(names).fetchall()
    same("tables after all refusals", after, before)
    return found


def long_results(conn):
    """Many rows, read one by one as they come, and a result that the client leaves early."""
    cursor = conn.cursor()
    read = sum(1 for _ in cursor.stream("SELECT * FROM generate_series(1, 100000)"))
    same("rows of a stream", read, 100_000)
    with connect(autocommit=True) as other:
        rows = other.cursor().stream("SELECT * FROM generate_series(1, 3000000)")
        first = [next(rows)[0] for _ in range(3)]
        same("first rows of a stream", first, [1, 2, 3])
        other.cancel_safe()
        failure_of(rows.close)
    wide = conn.execute("SELECT " + ", ".join(f"{number} AS c{number}" for number in range(500))).fetchone()
    same("500 columns", wide, tuple(range(500)))
    text = conn.execute("SELECT string_agg('ü', '') FROM generate_series(1, 1000000)").fetchone()[0]
    same("characters of a long text", len(text), 1_000_000)
    return read


def many_connections():
    """Twenty connections at once, each with its own answer."""
    found = {}

    def ask(number):
        with connect(autocommit=True) as conn:
            for round in range(5):
                expected = number * 100 + round
                found[number, round] = conn.execute("SELECT %s::int", [expected]).fetchone() == (expected,)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same("good answers of 20 connections", sum(found.values()), 100)


def settings(conn):
    """Runs the statements that drivers and pools send on their own. A server may leave some out."""
    cases = [
        "SET client_encoding = 'UTF8'",
        "SET application_name = 'a test'",
        "SET extra_float_digits = 3",
        "SET DateStyle TO ISO",
        "SET TIME ZONE 'UTC'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET statement_timeout = 0",
        "SET search_path = public",
        "RESET ALL",
        "DISCARD ALL",
        "DEALLOCATE ALL",
        "SHOW server_version",
        "SHOW transaction_isolation",
        "SHOW standard_conforming_strings",
        "SHOW search_path",
        "SELECT version()",
        "SELECT pg_catalog.version()",
        "SELECT current_schema()",
        "SELECT current_database()",
        "SELECT current_user",
        "SELECT pg_backend_pid()",
        "SELECT pg_is_in_recovery()",
        "SELECT now()",
        "LISTEN a",
        "UNLISTEN *",
    ]

    def run(statement):
        cursor = conn.execute(statement)
        return cursor.fetchall()[0][0] if cursor.description else cursor.statusmessage

    return {statement: attempt(lambda: run(statement), (psycopg.Error,)) for statement in cases}


def session():
    summary = {"connections": connections()}
    with connect(autocommit=True) as conn:
        simple_queries(conn)
        summary["types"] = types(conn)
        summary["parameters"] = parameters(conn)
        summary["tables"] = tables(conn)
        prepared(conn)
        summary["copy"] = copies(conn)
        summary["errors"] = errors(conn)
        summary["refused"] = refusals(conn)
        summary["long"] = long_results(conn)
        summary["settings"] = settings(conn)
    summary["transactions"] = transactions()
    summary["cancels"] = cancels()
    abandons()
    many_connections()
    return summary


report(session)
