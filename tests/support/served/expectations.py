"""Expectations that fail with a clear message, and the summary that the Rust test reads. Shared by the sessions."""

import json
import sys


class Unmet(Exception):
    """An expectation of a session that did not hold."""


def expect(holds, message):
    """Fails with `message` unless `holds`."""
    if not holds:
        raise Unmet(message)


def same(what, found, expected):
    """Fails unless `found` equals `expected`; returns it."""
    expect(found == expected, f"{what}: expected {expected!r}, found {found!r}")
    return found


def attempt(call, failures=(Exception,)):
    """Runs what a server may leave out: returns its result, or the failure as text."""
    try:
        return call()
    except failures as failure:
        return f"not supported: {first_line(failure)}"


def first_line(failure):
    code = getattr(failure, "sqlstate", None)
    text = str(failure).strip().split("\n")[0]
    return f"{code}: {text}" if code else text


def report(session):
    """Runs a session and prints its summary as one line of JSON, or the expectation that failed, with exit status 1."""
    try:
        summary = session()
    except Unmet as unmet:
        print(f"{sys.argv[0]}: {unmet}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(summary, default=str))
