"""Sends broken, hostile and strange bytes to the ports of Arrow Flight SQL and HTTP. After each case, both must answer others within 5 s.

Usage: web_garbage.py HOST FLIGHT_PORT HTTP_PORT. Prints one line of JSON with the number of cases; exits with 1 and a message otherwise.
A case of HTTP names the status that it expects; `any` allows an answer, a closed connection or silence.
"""

import random
import socket
import struct
import sys
import time

import pyarrow as pa
import pyarrow.flight as flight

from expectations import Unmet, expect, report, same
from flight_calls import command, fetch, field, plan
from wire import startup

HOST, FLIGHT, HTTP = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PATIENCE = 5.0

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    size = len(payload) if length is None else length
    return struct.pack("!I", size)[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def headers(**more):
    """Headers of a call as HPACK writes them without a table (RFC 7541, section 6.2.2)."""
    named = {":method": "POST", ":scheme": "http", ":path": "/arrow.flight.protocol.FlightService/GetFlightInfo",
             ":authority": "localhost", "content-type": "application/grpc", "te": "trailers"} | more
    parts = [name.encode() for pair in named.items() for name in pair]
    return b"".join((b"\0" if at % 2 == 0 else b"") + bytes([len(part)]) + part for at, part in enumerate(parts))


GREETING = PREFACE + frame(SETTINGS)
CALL = GREETING + frame(HEADERS, END_HEADERS, 1, headers())


def grpc(body, length=None):
    return b"\0" + struct.pack("!I", len(body) if length is None else length) + body


# Sent to the port of Flight SQL; whatever the answer is, others are served.
FLIGHT_BYTES = {
    "half a preface": PREFACE[:10],
    "a preface and half a frame": PREFACE + frame(SETTINGS)[:5],
    "random bytes after the preface": PREFACE + random.Random(5).randbytes(10_000),
    "a frame of 16 MB": GREETING + frame(DATA, 0, 1, b"abc", (1 << 24) - 1),
    "settings of five bytes": PREFACE + frame(SETTINGS, payload=bytes(5)),
    "headers that are no HPACK": GREETING + frame(HEADERS, END_HEADERS, 1, b"\xff" * 100),
    "headers that never end": GREETING + frame(HEADERS, 0, 1, headers()) + frame(CONTINUATION, 0, 1, bytes(10_000)) * 100,
    "data without headers": GREETING + frame(DATA, END_STREAM, 1, grpc(b"abc")),
    "a thousand calls that are reset": GREETING + b"".join(
        frame(HEADERS, END_HEADERS, stream, headers()) + frame(RST_STREAM, 0, stream, bytes(4)) for stream in range(1, 2001, 2)),
    "a window of nothing, then ten thousand pings": (
        GREETING + frame(WINDOW_UPDATE, payload=bytes(4)) + frame(PING, payload=bytes(8)) * 10_000),
    "a message of 1 GB": CALL + frame(DATA, 0, 1, grpc(b"abc", 1 << 30)),
    "a message of 4 GB": CALL + frame(DATA, END_STREAM, 1, grpc(b"abc", (1 << 32) - 1)),
    "half a message": CALL + frame(DATA, 0, 1, grpc(b"abc", 100)),
    "a message that is no protobuf": CALL + frame(DATA, END_STREAM, 1, grpc(b"\xff" * 50)),
    "a call of no service": GREETING + frame(HEADERS, END_HEADERS | END_STREAM, 1, headers(**{":path": "/no/such"})),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a start-up packet of PostgreSQL": startup(),
}

POST = "POST /v1/users/u/intents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
# Sent to the port of HTTP, with the expected status.
HTTP_BYTES = {
    "half a request line": (b"GET /healthz HT", "any"),
    "half a head": (b"GET /healthz HTTP/1.1\r\nHost: local", "any"),
    "a line that never ends": (b"GET /" + b"a" * 1_000_000, "any"),
    "a head of 1 MB": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 125_000 + b"\r\n", "any"),
    "random bytes": (random.Random(6).randbytes(10_000), "any"),
    "a body of 1 GB that does not come": (f"{POST}Content-Length: 1073741824\r\n\r\n[".encode(), "any"),
    "2 MB of a body of 1 GB": (f"{POST}Content-Length: 1073741824\r\n\r\n".encode() + b" " * 2_000_000, 413),
    "half a body": (f"{POST}Content-Length: 100\r\n\r\n[{{".encode(), "any"),
    "a negative length": (f"{POST}Content-Length: -1\r\n\r\n".encode(), 400),
    "two lengths": (f"{POST}Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]".encode(), 400),
    "a chunk without a length": (f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n".encode(), 400),
    "a chunk of 2^68 bytes": (f"{POST}Transfer-Encoding: chunked\r\n\r\n{'f' * 17}\r\n[]\r\n".encode(), 400),
    "a chunk that is longer than it says": (f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\n[]\r\n0\r\n\r\n".encode(), 400),
    "half a chunk": (f"{POST}Transfer-Encoding: chunked\r\n\r\n40000000\r\n[".encode(), "any"),
    "the preface of gRPC": (PREFACE + frame(SETTINGS), "any"),
    "a hundred thousand requests never read": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100_000, "any"),
}


def connect(port):
    conn = socket.create_connection((HOST, port), timeout=PATIENCE)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def send(port, data):
    conn = connect(port)
    conn.settimeout(1)
    try:
        conn.sendall(data)
    except (TimeoutError, ConnectionError):
        pass
    return conn


def status_of(conn):
    """The status of an answer of HTTP/1.1."""
    conn.settimeout(PATIENCE)
    found = b""
    try:
        while b"\r\n" not in found and (part := conn.recv(1 << 16)):
            found += part
    except (TimeoutError, ConnectionError):
        pass
    words = found.split(b" ", 2)
    return int(words[1]) if len(words) > 2 and words[0].startswith(b"HTTP/1.") else None


def others_are_served(name, client):
    started = time.monotonic()
    try:
        rows = fetch(client, plan(client, "SELECT 1 AS a")).to_pylist()
        status = status_of(send(HTTP, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    except (pa.ArrowException, OSError) as failure:
        raise Unmet(f"{name}: expected that others are served, found {failure!r}") from failure
    same(f"{name}: answers of others", (rows, status), ([{"a": 1}], 200))
    took = time.monotonic() - started
    expect(took < PATIENCE, f"{name}: expected answers to others within {PATIENCE} s, found {took:.1f} s")


def bad_calls(client):
    """Calls with good frames and bad messages; each is refused."""
    for_command = flight.FlightDescriptor.for_command
    calls = {
        "a ticket of garbage": lambda: client.do_get(flight.Ticket(b"\xff" * 50)).read_all(),
        "an empty ticket": lambda: client.do_get(flight.Ticket(b"")).read_all(),
        "a ticket of no statement": lambda: client.do_get(
            flight.Ticket(command("TicketStatementQuery", field(1, b"no such")))).read_all(),
        "a ticket whose handle is no text": lambda: client.do_get(
            flight.Ticket(command("TicketStatementQuery", field(1, b"\xff\xfe")))).read_all(),
        "a command of garbage": lambda: client.get_flight_info(for_command(b"\xff" * 50)),
        "an unknown command": lambda: client.get_flight_info(for_command(command("CommandNoSuch", b"abc"))),
        "a statement that is no text": lambda: client.get_flight_info(
            for_command(command("CommandStatementQuery", field(1, b"\xff\xfe")))),
        "a statement of 5 MB": lambda: plan(client, "SELECT '" + "a" * 5_000_000 + "'"),
        "an unknown action": lambda: list(client.do_action(flight.Action("NoSuch", b""))),
        "an action of garbage": lambda: list(client.do_action(flight.Action("CancelQuery", b"\xff" * 50))),
        "a cancel of garbage": lambda: list(client.do_action(
            flight.Action("CancelQuery", command("ActionCancelQueryRequest", field(1, b"\xff" * 50))))),
    }
    for name, call in calls.items():
        try:
            found = call()
        except pa.ArrowException:
            others_are_served(name, client)
        else:
            raise Unmet(f"{name}: expected a refusal, found {found}")
    return len(calls)


def session():
    client = flight.FlightClient(f"grpc://{HOST}:{FLIGHT}")
    others_are_served("before all cases", client)
    for name, data in FLIGHT_BYTES.items():
        conn = send(FLIGHT, data)
        # Still open while others ask.
        others_are_served(name, client)
        conn.close()
    for name, (data, expected) in HTTP_BYTES.items():
        conn = send(HTTP, data)
        if expected != "any":
            same(name, status_of(conn), expected)
        others_are_served(name, client)
        conn.close()
    calls = bad_calls(client)
    return {"flight": len(FLIGHT_BYTES) + calls, "http": len(HTTP_BYTES)}


report(session)
