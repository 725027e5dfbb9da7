"""Uses a server of the PostgreSQL protocol as a notebook does, with SQLAlchemy and pandas. It needs `intent` and `runs`.

Usage: pandas_session.py HOST PORT. Prints one line of JSON; exits with 1 and a message where an expectation fails.
"""

import datetime
import sys

import pandas as pd
import sqlalchemy as sa

from expectations import attempt, expect, report, same

HOST, PORT = sys.argv[1], sys.argv[2]
TOP = "SELECT user_id, run_date, p_purchase FROM intent ORDER BY p_purchase DESC LIMIT 20"


def catalogue(engine):
    """Lists schemas, tables and columns, as a notebook shows them."""
    inspector = sa.inspect(engine)
    schemas = inspector.get_schema_names()
    expect("tables" in schemas, f"schemas: expected `tables` among them, found {schemas}")
    names = inspector.get_table_names(schema="tables") + inspector.get_view_names(schema="tables")
    expect({"intent", "runs"} <= set(names), f"tables: expected `intent` and `runs` among them, found {names}")
    bare = inspector.get_table_names() + inspector.get_view_names()
    expect("intent" in bare, f"tables and views without a schema: expected `intent` among them, found {bare}")
    for schema in ("tables", None):
        expect(inspector.has_table("intent", schema=schema), f"has_table: expected intent, found none in schema {schema}")
        expect(not inspector.has_table("no_such", schema=schema), f"has_table: expected no such table in schema {schema}")
    columns = inspector.get_columns("intent", schema="tables")
    types = {column["name"]: str(column["type"]) for column in columns}
    same("type of user_id", types.get("user_id"), "TEXT")
    same("type of run_date", types.get("run_date"), "DATE")
    same("type of p_purchase", types.get("p_purchase"), "DOUBLE PRECISION")
    bare_names = [column["name"] for column in inspector.get_columns("intent")]
    expect("p_purchase" in bare_names, f"columns of bare intent: expected `p_purchase` among them, found {bare_names}")
    try:
        inspector.get_columns("no_such_table", schema="tables")
        expect(False, "columns of an unknown table: expected NoSuchTableError, found none")
    except sa.exc.NoSuchTableError:
        pass
    everything = inspector.get_multi_columns(schema="tables", kind=sa.engine.ObjectKind.ANY)
    expect(("tables", "intent") in everything, f"columns of all tables: expected intent, found {list(everything)}")
    return {
        "default_schema": inspector.default_schema_name,
        "schemas": schemas,
        "tables": sorted(inspector.get_table_names(schema="tables")),
        "views": sorted(inspector.get_view_names(schema="tables")),
        "bare": sorted(bare),
        "columns": [[column["name"], str(column["type"]), column["nullable"]] for column in columns],
        "comments": {column["name"]: column["comment"] for column in columns},
        "primary_key": inspector.get_pk_constraint("intent", schema="tables"),
        "foreign_keys": inspector.get_foreign_keys("intent", schema="tables"),
        "indexes": inspector.get_indexes("intent", schema="tables"),
        "unique": inspector.get_unique_constraints("intent", schema="tables"),
        "checks": inspector.get_check_constraints("intent", schema="tables"),
        "table_comment": attempt(lambda: inspector.get_table_comment("intent", schema="tables")["text"]),
        "view_definition": attempt(lambda: inspector.get_view_definition("intent")),
        "materialised": attempt(inspector.get_materialized_view_names),
        "sequences": attempt(inspector.get_sequence_names),
        "enums": attempt(inspector.get_enums),
        "domains": attempt(inspector.get_domains),
    }


def reflection(engine):
    """A table of SQLAlchemy made from the server's catalogue, and queries that SQLAlchemy writes over it."""
    intent = sa.Table("intent", sa.MetaData(), schema="tables", autoload_with=engine)
    everything = sa.MetaData()
    everything.reflect(engine, schema="tables", views=True)
    expect("tables.runs" in everything.tables, f"reflection: expected tables.runs, found {list(everything.tables)}")
    likely = sa.select(intent.c.user_id, intent.c.p_purchase).where(intent.c.p_purchase >= 0.0).limit(5)
    by_day = sa.select(intent.c.run_date, sa.func.count()).group_by(intent.c.run_date).order_by(intent.c.run_date)
    with engine.connect() as conn:
        rows = conn.execute(likely).fetchall()
        expect(rows, "rows of a query that SQLAlchemy wrote: expected some, found none")
        days = [list(row) for row in conn.execute(by_day)]
        of_day = sa.select(sa.func.count()).where(intent.c.run_date == days[0][0])
        same("rows of the first day", conn.execute(of_day).scalar(), days[0][1])
        users = [row.user_id for row in rows]
        listed = sa.select(sa.func.count(sa.distinct(intent.c.user_id))).where(intent.c.user_id.in_(users))
        same("users of a list", conn.execute(listed).scalar(), len(set(users)))
        portions = conn.execution_options(yield_per=100)
        streamed = attempt(lambda: len(portions.execute(sa.select(intent.c.user_id)).fetchall()), (sa.exc.DBAPIError,))
    return {"columns": [column.name for column in intent.columns], "tables": sorted(everything.tables), "days": days,
            "server side cursor": streamed}


def frames(engine):
    """Frames of pandas from text, with parameters, in portions, and of a whole table."""
    top = pd.read_sql(TOP, engine)
    same("columns of a frame", list(top.columns), ["user_id", "run_date", "p_purchase"])
    expect(0 < len(top) <= 20, f"rows of a frame: expected 1 to 20, found {len(top)}")
    same("type of p_purchase in a frame", str(top["p_purchase"].dtype), "float64")
    expect(top["p_purchase"].is_monotonic_decreasing, "p_purchase: expected falling values")
    expect(isinstance(top["run_date"][0], datetime.date), f"run_date: expected a date, found {top['run_date'][0]!r}")
    user = top["user_id"][0]
    by_user = pd.read_sql(sa.text("SELECT * FROM intent WHERE user_id = :user"), engine, params={"user": user})
    same("rows of one user", len(by_user), 1)
    by_mark = pd.read_sql("SELECT * FROM intent WHERE user_id = %(user)s", engine, params={"user": user})
    same("rows of one user by %(user)s", len(by_mark), 1)
    dates = pd.read_sql(TOP, engine, parse_dates=["run_date"])
    same("type of a parsed date", str(dates["run_date"].dtype).split("[")[0], "datetime64")
    whole = pd.read_sql_table("intent", engine, schema="tables")
    counted = pd.read_sql("SELECT count(*) AS n FROM tables.intent", engine)["n"][0]
    same("rows of read_sql_table", len(whole), int(counted))
    some = pd.read_sql_table("intent", engine, schema="tables", columns=["user_id", "p_purchase"])
    same("columns of read_sql_table", list(some.columns), ["user_id", "p_purchase"])
    portions = [len(part) for part in pd.read_sql("SELECT user_id FROM tables.intent", engine, chunksize=100)]
    same("rows of all portions", sum(portions), int(counted))
    arrow = pd.read_sql(TOP, engine, dtype_backend="pyarrow")
    same("type of p_purchase in Arrow", str(arrow["p_purchase"].dtype), "double[pyarrow]")
    return {"top": top.astype(str).values.tolist(), "rows": int(counted), "by_user": len(by_user.columns),
            "types": {name: str(kind) for name, kind in whole.dtypes.items()}, "portions": portions[:3]}


def refusals(engine):
    """pandas cannot write; the engine serves afterwards."""
    frame = pd.DataFrame({"a": [1]})
    found = {}
    for schema in (None, "tables"):
        try:
            frame.to_sql("made", engine, schema=schema)
            expect(False, f"to_sql: expected a refusal in schema {schema}, found none")
        except sa.exc.DBAPIError as failure:
            code = failure.orig.sqlstate
            expect(code and len(code) == 5, f"to_sql: expected an SQLSTATE, found {failure.orig!r}")
            found[str(schema)] = code
    with engine.connect() as conn:
        same("a query after refusals", conn.execute(sa.text("SELECT 1")).scalar(), 1)
        try:
            conn.execute(sa.text("SELECT no_such_column FROM intent"))
            expect(False, "an unknown column: expected an error, found none")
        except sa.exc.DBAPIError:
            conn.rollback()
        same("a query after an error", conn.execute(sa.text("SELECT 1")).scalar(), 1)
    return found


def session():
    engine = sa.create_engine(f"postgresql+psycopg://anyone@{HOST}:{PORT}/anything", pool_pre_ping=True)
    version = engine.connect().dialect.server_version_info
    summary = {"server_version": version, "catalogue": catalogue(engine), "reflection": reflection(engine)}
    summary |= {"frames": frames(engine), "refused": refusals(engine)}
    engine.dispose()
    automatic = sa.create_engine(f"postgresql+psycopg://anyone@{HOST}:{PORT}/anything", isolation_level="AUTOCOMMIT")
    same("rows without transactions", len(pd.read_sql("SELECT 1 AS a", automatic)), 1)
    automatic.dispose()
    return summary


report(session)
