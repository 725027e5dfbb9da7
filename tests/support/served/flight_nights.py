"""Chooses a night of Arrow Flight SQL with the header `intentcast-run-date`, by ADBC.

Usage: flight_nights.py HOST PORT EARLIER NEWEST. Prints one line of JSON; exits with 1 and a message where an expectation fails.
"""

import sys

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager

from expectations import expect, report, same

URI = f"grpc://{sys.argv[1]}:{sys.argv[2]}"
EARLIER, NEWEST = sys.argv[3:5]
HEADER = "adbc.flight.sql.rpc.call_header.intentcast-run-date"


def nights(run_date=None):
    """The dates of published rows and of features, as a client sees them that asks for a night."""
    options = {} if run_date is None else {HEADER: run_date}
    with flight_sql.connect(URI, db_kwargs=options, autocommit=True) as conn, conn.cursor() as cursor:
        cursor.execute("SELECT max(run_date), max(as_of()::date) FROM intent")
        shown = [str(date) for date in cursor.fetchone()]
        cursor.execute("SELECT count(DISTINCT run_date), max(run_date) FROM intent_history")
        count, last = cursor.fetchone()
    return [*shown, count, str(last)]


def refusal(run_date):
    try:
        return f"answered {nights(run_date)}"
    except adbc_driver_manager.Error as failure:
        return str(failure)


def session():
    same("the newest night", nights(), [NEWEST, NEWEST, 2, NEWEST])
    same("an earlier night", nights(EARLIER), [EARLIER, EARLIER, 1, EARLIER])
    same("the newest night by name", nights(NEWEST), [NEWEST, NEWEST, 2, NEWEST])
    for run_date in ["2001-01-01", "soon"]:
        found = refusal(run_date)
        expect(run_date in found and "InvalidArgument" in found, f"{run_date}: expected a refusal, found {found}")
    return {}


report(session)
