"""Keeps connections open while the server takes up a new night: a long query that began before, and a prepared statement.

Usage: night_changes.py HOST PORT EARLIER NEWER. Prints one line of JSON; exits with 1 and a message where an expectation fails.
"""

import sys
import time

import psycopg

from expectations import expect, report, same

HOST, PORT, EARLIER, NEWER = sys.argv[1], int(sys.argv[2]), *sys.argv[3:5]
PATIENCE_SECONDS = 240
COPIES = 20_000


def connect():
    return psycopg.connect(host=HOST, port=PORT, user="reader", dbname="shop", connect_timeout=10, autocommit=True)


def session():
    with connect() as long, connect() as prepared:
        users = long.execute("SELECT count(*) FROM intent").fetchone()[0]
        # More rows than sockets and the server hold ahead.
        rows = long.cursor().stream(f"SELECT run_date FROM intent, generate_series(1, {COPIES})")
        same("the first row of a long query", str(next(rows)[0]), EARLIER)

        def newest():
            found = prepared.execute("SELECT max(run_date), count(*) > %s FROM intent", (0,), prepare=True).fetchone()
            expect(found[1], "a night without users")
            return str(found[0])

        asked, began = 0, time.monotonic()
        same("the night before the change", newest(), EARLIER)
        while newest() == EARLIER:
            expect(time.monotonic() - began < PATIENCE_SECONDS, f"no night of {NEWER} was taken up")
            asked += 1
            time.sleep(0.05)
        same("a prepared statement after the change", newest(), NEWER)

        # The long query reads the night that was the newest at its start, to its end.
        dates, count = set(), 1
        for row in rows:
            dates.add(str(row[0]))
            count += 1
        same("nights of a query that began before the change", dates, {EARLIER})
        same("its rows", count, users * COPIES)
    return {"asked": asked, "rows": count}


report(session)
