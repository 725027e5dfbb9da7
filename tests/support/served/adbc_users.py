"""Logs in to Arrow Flight SQL over TLS, as the users of the test's settings file, whose passwords are `of NAME`.

Usage: adbc_users.py HOST PORT CERTIFICATE. Prints one line of JSON; exits with 1 and a message where an expectation fails.
"""

import concurrent.futures
import sys
import time

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight

from expectations import expect, report, same
from flight_calls import CANCELLED, NOT_CANCELLABLE, cancel, fetch, plan

HOST, PORT, CERTIFICATE = sys.argv[1:4]
URI = f"grpc+tls://{HOST}:{PORT}"
LONG_QUERY = "SELECT count(*) FROM generate_series(1, 100000000000)"


def connect(name=None, password=None):
    options = {"adbc.flight.sql.client_option.tls_root_certs": open(CERTIFICATE).read()}
    if name is not None:
        options |= {"username": name, "password": password}
    return flight_sql.connect(URI, db_kwargs=options, autocommit=True)


def rows(sql, name, password=None):
    with connect(name, f"of {name}" if password is None else password) as conn, conn.cursor() as cursor:
        cursor.execute(sql)
        return [tuple(row.values()) for row in cursor.fetch_arrow_table().to_pylist()]


def refused(call):
    """ADBC's name of the status with which a call fails."""
    try:
        found = call()
    except adbc_driver_manager.Error as failure:
        return failure.status_code.name
    # While rows are read, pyarrow raises its own error.
    except OSError as failure:
        return "UNAUTHENTICATED" if "Unauthenticated" in str(failure) else str(failure)
    return f"answered {found!r}"


def nameless(ask):
    with connect() as conn:
        return ask(conn)


def session():
    same("one row of an analyst", rows("SELECT 1", "analyst"), [(1,)])
    same("a wrong password", refused(lambda: rows("SELECT 1", "analyst", "of planner")), "UNAUTHENTICATED")
    same("an unknown user", refused(lambda: rows("SELECT 1", "o'neill", "x")), "UNAUTHENTICATED")
    same("no credentials", refused(lambda: nameless(lambda conn: conn.cursor().execute("SELECT 1"))), "UNAUTHENTICATED")
    same("tables without credentials", refused(lambda: nameless(lambda conn: conn.adbc_get_objects().read_all())), "UNAUTHENTICATED")
    same("types without credentials", refused(lambda: nameless(lambda conn: conn.adbc_get_table_types())), "UNAUTHENTICATED")
    same("the role service", refused(lambda: rows("SELECT 1", "service")), "UNAUTHORIZED")
    same("intents for a planner", refused(lambda: rows("SELECT * FROM intent", "planner")), "NOT_FOUND")
    expect(rows("SELECT count(*) FROM replenishment", "planner")[0][0] > 0, "replenishment for a planner: expected rows")
    # The scored rows of a person are the same, under another name.
    ids = {user_id for (user_id,) in rows("SELECT user_id FROM intent", "analyst")}
    pseudonyms = {user_id for (user_id,) in rows("SELECT user_id FROM intent", "researcher")}
    same("number of pseudonyms", len(pseudonyms), len(ids))
    expect(all(len(pseudonym) == 32 for pseudonym in pseudonyms), f"pseudonyms: expected 32 digits, found {min(pseudonyms)}")
    expect(not ids & pseudonyms, "pseudonyms: expected no ids")
    same("texts of searches", rows("SELECT count(query) FROM lake.events", "analyst"), [(0,)])
    for sql in ["SELECT * FROM 'http://169.254.169.254/latest/meta-data'", "SELECT * FROM '/etc/passwd'"]:
        same(sql, refused(lambda sql=sql: rows(sql, "analyst")), "NOT_FOUND")
    cancels()
    return {"token": len(token())}


def cancels():
    """The action CancelQuery ends a query for its owner, and for no one else."""
    client = flight.FlightClient(URI, tls_root_certs=open(CERTIFICATE, "rb").read())

    def as_user(name):
        return flight.FlightCallOptions(headers=[client.authenticate_basic_token(name, f"of {name}")])

    owner, other = as_user("analyst"), as_user("admin")
    info = plan(client, LONG_QUERY, owner)
    same("a cancel of a stranger's query", cancel(client, info, other), NOT_CANCELLABLE)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(fetch, client, info, owner)
        time.sleep(0.5)
        same("a cancel of a stranger's query that runs", cancel(client, info, other), NOT_CANCELLABLE)
        time.sleep(0.5)
        expect(not running.done(), f"a query that a stranger wanted to cancel: expected to run, found {running}")
        same("a cancel by the owner", cancel(client, info, owner), CANCELLED)
        failure = running.exception(timeout=30)
    took = time.monotonic() - started
    expect(isinstance(failure, pa.ArrowCancelled), f"a cancelled query: expected a cancellation, found {failure!r}")
    expect(took < 10, f"a cancelled query: expected an end within 10 s, found {took:.1f} s")
    try:
        found = cancel(client, info)
    except flight.FlightUnauthenticatedError as refusal:
        found = type(refusal).__name__
    same("a cancel without credentials", found, "FlightUnauthenticatedError")


def token():
    """A token of the handshake, which lets its holder in without a password."""
    client = flight.FlightClient(URI, tls_root_certs=open(CERTIFICATE, "rb").read())
    header = client.authenticate_basic_token("analyst", "of analyst")
    value = header[1].decode()
    expect(value.startswith("Bearer "), f"token: expected Bearer, found {value}")
    options = {"adbc.flight.sql.client_option.tls_root_certs": open(CERTIFICATE).read(), "adbc.flight.sql.authorization_header": value}
    with flight_sql.connect(URI, db_kwargs=options, autocommit=True) as conn, conn.cursor() as cursor:
        cursor.execute("SELECT 2")
        same("a row by token", cursor.fetch_arrow_table().to_pylist()[0].popitem()[1], 2)
    return value


report(session)
