"""Asks a server of Arrow Flight SQL whose queue of queries is full.

Usage: flight_busy.py HOST PORT. Prints one line of JSON; exits with 1 and a message where an expectation fails.
"""

import sys

import pyarrow as pa
import pyarrow.flight as flight

from expectations import Unmet, expect, report
from flight_calls import fetch, plan


def session():
    client = flight.FlightClient(f"grpc://{sys.argv[1]}:{sys.argv[2]}")
    info = plan(client, "SELECT count(*) FROM intent")
    try:
        rows = fetch(client, info)
    except pa.ArrowException as failure:
        status = str(failure)
    else:
        raise Unmet(f"a query of a full server: expected a refusal, found {rows}")
    expect("resource exhausted" in status.lower(), f"its status: expected resource exhausted, found {status}")
    return {"status": status}


report(session)
