"""Logs in to Arrow Flight SQL over TLS, as the users of the test's settings file, whose passwords are `of NAME`.

Usage: adbc_users.py HOST PORT CERTIFICATE. Prints one line of JSON; exits with 1 and a message where an expectation fails.
"""

import sys

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import pyarrow.flight as flight

from expectations import expect, report, same

HOST, PORT, CERTIFICATE = sys.argv[1:4]
URI = f"grpc+tls://{HOST}:{PORT}"


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
    return {"token": len(token())}


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
