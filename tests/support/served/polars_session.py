"""Reads frames of polars from both ports of a server: Arrow Flight SQL by ADBC, the PostgreSQL protocol by psycopg.

Usage: polars_session.py HOST PG_PORT FLIGHT_PORT. A port of 0 is left out. It needs the table `intent`. Prints one line of JSON; exits
with 1 and a message where an expectation fails.
"""

import sys

import adbc_driver_flightsql.dbapi as flight_sql
import polars as pl
import psycopg

from expectations import expect, report, same

HOST, PG_PORT, FLIGHT_PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
TOP = "SELECT user_id, run_date, p_purchase FROM intent ORDER BY p_purchase DESC, user_id LIMIT 20"
WHOLE = "SELECT * FROM tables.intent ORDER BY run_date, user_id"


def read(conn, mark):
    """Frames of one connection; `mark` is its sign for a parameter."""
    top = pl.read_database(TOP, conn)
    expected = {"user_id": pl.String, "run_date": pl.Date, "p_purchase": pl.Float64}
    same("schema of the top users", dict(top.schema), expected)
    expect(0 < top.height <= 20, f"rows of the top users: expected 1 to 20, found {top.height}")
    expect(top["p_purchase"].is_sorted(descending=True), "p_purchase: expected falling values")
    user = top["user_id"][0]
    by_user = f"SELECT user_id, p_purchase FROM intent WHERE user_id = {mark}"
    one = pl.read_database(by_user, conn, execute_options={"parameters" if mark == "$1" else "params": [user]})
    same("rows of one user", one.rows(), [(user, top["p_purchase"][0])])
    whole = pl.read_database(WHOLE, conn, infer_schema_length=None)
    count = pl.read_database("SELECT count(*) AS n FROM tables.intent", conn)["n"][0]
    same("rows of the whole table", whole.height, count)
    portions = pl.read_database("SELECT user_id FROM tables.intent", conn, iter_batches=True, batch_size=100)
    same("rows of all portions", sum(part.height for part in portions), count)
    none = pl.read_database(f"SELECT * FROM ({TOP}) AS t WHERE false", conn)
    same("columns of nothing", none.columns, top.columns)
    return top, whole


def session():
    summary, frames = {}, []
    if PG_PORT:
        with psycopg.connect(host=HOST, port=PG_PORT, user="anyone", dbname="anything", connect_timeout=10) as conn:
            frames.append(read(conn, "%s"))
    if FLIGHT_PORT:
        with flight_sql.connect(f"grpc://{HOST}:{FLIGHT_PORT}", autocommit=True) as conn:
            frames.append(read(conn, "$1"))
    expect(frames, "expected a port, found none")
    if len(frames) == 2:
        (top, whole), (other_top, other_whole) = frames
        expect(top.equals(other_top), f"top users: expected the same from both ports, found {top} and {other_top}")
        shared = [name for name, kind in whole.schema.items() if kind == other_whole.schema.get(name)]
        same("columns of both ports", other_whole.columns, whole.columns)
        expect({"user_id", "run_date", "p_purchase"} <= set(shared), f"columns of the same type: found {shared}")
        expect(whole.select(shared).equals(other_whole.select(shared)), f"expected the same {shared} from both ports")
        summary["same"] = shared
    top, whole = frames[0]
    return summary | {"top": top.rows(), "rows": whole.height, "types": {name: str(kind) for name, kind in whole.schema.items()}}


report(session)
