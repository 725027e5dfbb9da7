"""Sends broken, hostile and strange bytes to the PostgreSQL port. After each case, another connection must answer within 5 s.

Usage: wire_garbage.py HOST PORT [CASE]. Prints one line of JSON with the number of cases; exits with 1 and a message otherwise.
An expected answer of a case is an SQLSTATE of PostgreSQL's, or a class of them (its first two letters), after which the same
connection is used again; `any` allows an answer, a closed connection or silence.
"""

import random
import socket
import ssl
import struct
import sys
import time

from expectations import Unmet, expect, report, same
from wire import CANCEL, GSS_REQUEST, SSL_REQUEST, message, read_exactly, read_message, startup

HOST, PORT = sys.argv[1], int(sys.argv[2])
ONLY = sys.argv[3] if len(sys.argv) > 3 else ""
PATIENCE = 5.0


def simple(sql):
    return message(b"Q", sql.encode() + b"\0")


def parse(name, sql, types=()):
    body = name.encode() + b"\0" + sql.encode() + b"\0" + struct.pack("!H", len(types))
    return message(b"P", body + b"".join(struct.pack("!I", oid) for oid in types))


def bind(portal="", statement="", formats=(), values=(), results=()):
    body = portal.encode() + b"\0" + statement.encode() + b"\0" + struct.pack("!H", len(formats))
    body += b"".join(struct.pack("!h", code) for code in formats) + struct.pack("!H", len(values))
    body += b"".join(struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value for value in values)
    return message(b"B", body + struct.pack("!H", len(results)) + b"".join(struct.pack("!h", code) for code in results))


def execute(portal="", most=0):
    return message(b"E", portal.encode() + b"\0" + struct.pack("!i", most))


def describe(kind, name=""):
    return message(b"D", kind + name.encode() + b"\0")


def close(kind, name=""):
    return message(b"C", kind + name.encode() + b"\0")


SYNC, FLUSH, TERMINATE = message(b"S"), message(b"H"), message(b"X")


def connect():
    conn = socket.create_connection((HOST, PORT), timeout=PATIENCE)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def read_until_ready(conn):
    """Messages up to ReadyForQuery."""
    found = []
    while not found or found[-1][0] != b"Z":
        found.append(read_message(conn))
    return found


def open_session():
    conn = connect()
    conn.sendall(startup())
    read_until_ready(conn)
    return conn


def state_of(messages):
    """The SQLSTATE of the first error among messages."""
    for kind, body in messages:
        if kind == b"E":
            fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
            return fields.get(b"C", b"?????").decode()
    return None


def ask_one(conn):
    conn.sendall(simple("SELECT 1"))
    messages = read_until_ready(conn)
    rows = [body for kind, body in messages if kind == b"D"]
    expect(rows == [b"\0\1\0\0\0\x011"], f"SELECT 1: expected one row with 1, found {messages}")


def drain(conn, patience):
    """Reads until the server closes, or says nothing more for a while; returns how it ended and the SQLSTATE it gave."""
    conn.settimeout(patience)
    found = b""
    try:
        while part := conn.recv(1 << 20):
            found += part
            if len(found) > 1 << 22:
                return "answers", None
        end = "closes"
    except TimeoutError:
        end = "answers" if found else "waits"
    except ConnectionError:
        end = "closes"
    code = None
    if b"C" in found and found[:1] in b"EZRSKCTDt123n" and len(found) > 5:
        code = state_of(messages_of(found))
    return end, code


def messages_of(data):
    """Whole messages at the beginning of bytes."""
    found = []
    while len(data) >= 5:
        kind, length = struct.unpack("!ci", data[:5])
        if not 4 <= length <= len(data) - 1:
            break
        found.append((kind, data[5:length + 1]))
        data = data[length + 1:]
    return found


def client_hello():
    """The first bytes of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def noise(seed, size):
    return random.Random(seed).randbytes(size)


# Sent as the first bytes of a connection; whatever the answer is, others are served.
FIRST_BYTES = {
    "nothing": b"",
    "one byte": b"\0",
    "half a length": b"\0\0",
    "a length and nothing else": b"\0\0\0\x29",
    "half a start-up packet": startup()[:20],
    "random bytes 1": noise(1, 1000),
    "random bytes 2": noise(2, 100_000),
    "random bytes after a good version": struct.pack("!II", 500, 196608) + noise(3, 492),
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "a start-up packet of 1 GB": struct.pack("!II", 1 << 30, 196608) + b"user\0anyone\0",
    "a start-up packet of 2 GB": struct.pack("!II", (1 << 31) - 1, 196608) + b"user\0anyone\0",
    "a start-up packet of negative length": struct.pack("!iI", -1, 196608) + b"user\0anyone\0\0",
    "a start-up packet of the least length": struct.pack("!iI", -(1 << 31), 196608) + b"user\0anyone\0\0",
    "a start-up packet of length 0": struct.pack("!iI", 0, 196608),
    "a start-up packet of length 4": struct.pack("!i", 4),
    "a start-up packet of length 7": struct.pack("!i", 7) + b"\0\3\0",
    "a start-up packet without parameters": startup(body=b""),
    "protocol 1.0": startup(1 << 16),
    "protocol 2.0": startup(2 << 16),
    "protocol 3.99": startup((3 << 16) + 99),
    "protocol 4.0": startup(4 << 16),
    "protocol 65535.65535": startup((1 << 32) - 1),
    "parameters without an end": startup(body=b"user\0anyone\0database\0anything"),
    "a parameter without a value": startup(body=b"user\0"),
    "no user": startup(body=b"database\0anything\0\0"),
    "an empty user": startup(body=b"user\0\0database\0anything\0\0"),
    "a user that is not UTF-8": startup(body=b"user\0\xff\xfe\xc3\0\0"),
    "a user of 9,000 bytes": startup(body=b"user\0" + b"u" * 9000 + b"\0\0"),
    "a user of 1 MB": startup(body=b"user\0" + b"u" * 1_000_000 + b"\0\0"),
    "ten thousand parameters": startup(body=b"user\0anyone\0" + b"a\0b\0" * 10_000 + b"\0"),
    "replication": startup(body=b"user\0anyone\0replication\0true\0\0"),
    "options": startup(body=b"user\0anyone\0options\0-c work_mem=1 --shared_preload_libraries=/tmp/x\0\0"),
    "a bad client encoding": startup(body=b"user\0anyone\0database\0anything\0client_encoding\0no_such\0\0"),
    "bytes after an SSLRequest": struct.pack("!II", 8, SSL_REQUEST) + startup() + simple("SELECT 1"),
    "an SSLRequest with a body": struct.pack("!II", 12, SSL_REQUEST) + b"abcd",
    "a hundred SSLRequests": struct.pack("!II", 8, SSL_REQUEST) * 100,
    "both requests for encryption, again and again": (struct.pack("!II", 8, SSL_REQUEST) + struct.pack("!II", 8, GSS_REQUEST)) * 50,
    "a cancel request for nothing": struct.pack("!IIII", 16, CANCEL, 1, 1),
    "a cancel request without a key": struct.pack("!II", 8, CANCEL),
    "a cancel request with a long key": struct.pack("!III", 268, CANCEL, 1) + bytes(256),
    "half a cancel request": struct.pack("!III", 16, CANCEL, 1),
    "a query before the start-up packet": simple("SELECT 1"),
    "a password before the start-up packet": message(b"p", b"secret\0"),
    "a TLS ClientHello": client_hello(),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long HTTP request": b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
    "the preface of gRPC": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a Redis command": b"*1\r\n$4\r\nPING\r\n",
    "a MySQL log-in": b"\x20\0\0\1\x85\xa6\x3f\x20\0\0\0\1\x21" + bytes(23),
}

DEEP = 30_000
PREPARED = parse("", "SELECT $1::int")
# Sent in a session, with the expected SQLSTATE, its class or several of them, or `any`; None expects no error.
IN_SESSION = {
    "an unknown message": (message(b"?", b"abc") + SYNC, "any"),
    "a message of kind zero": (message(b"\0", b"abc"), "any"),
    "random bytes in a session": (noise(4, 10_000), "any"),
    "zeros in a session": (bytes(10_000), "any"),
    "half a message": (simple("SELECT 1")[:8], "any"),
    "a kind without a length": (b"Q", "any"),
    "a Query without its end": (message(b"Q", b"SELECT 1"), "any"),
    "a Query with a zero inside": (message(b"Q", b"SELECT 1\0SELECT 2\0"), "any"),
    "a Query without a body": (message(b"Q"), "any"),
    "a Query of length 0": (message(b"Q", b"SELECT 1\0", 0), "any"),
    "a Query of length 3": (message(b"Q", b"SELECT 1\0", 3), "any"),
    "a Query of negative length": (message(b"Q", b"SELECT 1\0", -1), "any"),
    "a Query of the least length": (message(b"Q", b"SELECT 1\0", -(1 << 31)), "any"),
    "a Query of 1 GB": (message(b"Q", b"SELECT 1\0", 1 << 30), "any"),
    "20 MB of a Query of 1 GB": (message(b"Q", b" " * 20_000_000, 1 << 30), "any"),
    "a Query of 2 GB": (message(b"Q", b"SELECT 1\0", (1 << 31) - 1), "any"),
    "a Parse of 1 GB": (message(b"P", b"\0SELECT 1\0", 1 << 30), "any"),
    "a Query that is not UTF-8": (message(b"Q", b"SELECT '\xff\xfe'\0"), "any"),
    "an empty Query": (simple(""), None),
    "a Query of semicolons": (simple(";;;;"), None),
    "a Query of 4 MB of spaces": (simple(" " * 4_000_000 + "SELECT 1"), "any"),
    "a text that does not end": (simple("SELECT 'abc"), "42"),
    "a comment that does not end": (simple("SELECT 1 /* abc"), "42"),
    "deep parentheses": (simple("SELECT " + "(" * DEEP + "1" + ")" * DEEP), "any"),
    "many signs": (simple("SELECT " + "- " * DEEP + "1"), "any"),
    "many NOTs": (simple("SELECT " + "NOT " * DEEP + "true"), "any"),
    "a long sum": (simple("SELECT " + "1+" * DEEP + "1"), "any"),
    "a long AND": (simple("SELECT 1 WHERE " + "1=1 AND " * DEEP + "1=1"), "any"),
    "deep subqueries": (simple("SELECT * FROM (" * 2000 + "SELECT 1 AS a" + ") AS t" * 2000), "any"),
    "deep CASEs": (simple("SELECT " + "CASE WHEN true THEN " * 5000 + "1" + " END" * 5000), "any"),
    "deep function calls": (simple("SELECT " + "abs(" * 10_000 + "1" + ")" * 10_000), "any"),
    "many UNIONs": (simple("SELECT 1" + " UNION ALL SELECT 1" * 3000), "any"),
    "a Parse without its end": (message(b"P", b"\0SELECT 1") + SYNC, "any"),
    "a Parse without types": (message(b"P", b"\0SELECT 1\0") + SYNC, "any"),
    "a Parse of 65535 types, none there": (message(b"P", b"\0SELECT 1\0\xff\xff") + SYNC, "any"),
    "a Parse of an unknown type": (parse("", "SELECT $1", [999_999]) + SYNC, "any"),
    "a Parse with a bad query": (parse("", "SELEC 1") + SYNC, "42601"),
    "a Parse of two statements": (parse("", "SELECT 1; SELECT 2") + SYNC, "42601"),
    "a Parse of nothing": (parse("", "") + bind() + describe(b"P") + execute() + SYNC, None),
    "a Parse of a name that is taken": (parse("a", "SELECT 1") + parse("a", "SELECT 2") + SYNC, "any"),
    "a Parse of the same name after Close": (parse("a", "SELECT 1") + close(b"S", "a") + parse("a", "SELECT 2") + SYNC, None),
    "a Parse of a long name": (parse("n" * 100_000, "SELECT 1") + SYNC, None),
    "a Parse of a name that is not UTF-8": (message(b"P", b"\xff\xfe\0SELECT 1\0\0\0") + SYNC, "any"),
    "a Parse of parameter 65535": (parse("", "SELECT $65535::int") + SYNC, "any"),
    "a Parse of parameter 99999999999": (parse("", "SELECT $99999999999::int") + SYNC, "any"),
    "a Parse of parameter 0": (parse("", "SELECT $0::int") + SYNC, "any"),
    "a Bind of an unknown statement": (bind(statement="no such") + execute() + SYNC, "26000"),
    "a Bind of no parameters to one": (PREPARED + bind() + SYNC, "any"),
    "a Bind of two parameters to one": (PREPARED + bind(values=[b"1", b"2"]) + SYNC, "any"),
    "a Bind of two formats to one": (PREPARED + bind(formats=[0, 0], values=[b"1"]) + SYNC, "any"),
    "a Bind of format 7": (PREPARED + bind(formats=[7], values=[b"1"]) + SYNC, "any"),
    "a Bind of result format 7": (PREPARED + bind(values=[b"1"], results=[7]) + execute() + SYNC, "any"),
    "a Bind of two result formats to one": (PREPARED + bind(values=[b"1"], results=[0, 0]) + execute() + SYNC, "any"),
    "a Bind of a text that is no number": (PREPARED + bind(values=[b"abc"]) + execute() + SYNC, "22P02"),
    "a Bind of too large a number": (PREPARED + bind(values=[b"99999999999"]) + execute() + SYNC, "any"),
    "a Bind of three bytes for an int": (PREPARED + bind(formats=[1], values=[b"abc"]) + execute() + SYNC, ("22", "08P01")),
    "a Bind of eight bytes for an int": (PREPARED + bind(formats=[1], values=[bytes(8)]) + execute() + SYNC, ("22", "08P01")),
    "a Bind of no bytes for an int": (PREPARED + bind(formats=[1], values=[b""]) + execute() + SYNC, "any"),
    "a Bind of a text that is not UTF-8": (parse("", "SELECT $1::text") + bind(values=[b"\xff\xfe"]) + execute() + SYNC, "22"),
    "a Bind of a text with a zero": (parse("", "SELECT $1::text") + bind(values=[b"a\0b"]) + execute() + SYNC, "any"),
    "a Bind of a value longer than the message": (
        PREPARED + message(b"B", b"\0\0\0\0\0\1\x7f\xff\xff\xff1") + SYNC, "any"),
    "a Bind of a value of length -2": (PREPARED + message(b"B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0") + SYNC, "any"),
    "a Bind that ends early": (PREPARED + message(b"B", b"\0\0\0") + SYNC, "any"),
    "a Bind without a body": (PREPARED + message(b"B") + SYNC, "any"),
    "a Bind with bytes left over": (PREPARED + message(b"B", b"\0\0\0\0\0\1\0\0\0\0011\0\0more") + SYNC, "any"),
    "a Bind of 65535 parameters": (PREPARED + bind(values=[b"1"] * 65_535) + SYNC, "any"),
    "a Bind of a portal that is taken": (
        parse("", "SELECT 1") + bind("a") + bind("a") + SYNC, "any"),
    "a Describe of an unknown statement": (describe(b"S", "no such") + SYNC, "26000"),
    "a Describe of an unknown portal": (describe(b"P", "no such") + SYNC, "any"),
    "a Describe of another kind": (describe(b"X", "a") + SYNC, "any"),
    "a Describe without a body": (message(b"D") + SYNC, "any"),
    "an Execute of an unknown portal": (execute("no such") + SYNC, "any"),
    "an Execute after a Sync": (parse("", "SELECT 1") + bind("a") + SYNC + execute("a") + SYNC, "any"),
    "an Execute of a negative count": (parse("", "SELECT 1") + bind() + execute(most=-5) + SYNC, "any"),
    "an Execute without a count": (parse("", "SELECT 1") + bind() + message(b"E", b"\0") + SYNC, "any"),
    "an Execute again after its end": (parse("", "SELECT 1") + bind() + execute() + execute() + SYNC, "any"),
    "a Close of an unknown statement": (close(b"S", "no such") + close(b"P", "no such") + SYNC, None),
    "a Close of another kind": (close(b"X", "a") + SYNC, "any"),
    "a Sync with a body": (message(b"S", b"abc") + SYNC, "any"),
    "a Flush alone": (FLUSH + SYNC, None),
    "messages after an error": (parse("", "SELEC") + bind() + execute() + parse("", "SELECT 1") + execute() + SYNC, "42601"),
    "a portal read in portions": (
        parse("", "SELECT * FROM generate_series(1, 10)") + bind() + execute(most=3) + execute(most=3) + execute() + SYNC, None),
    "COPY data without COPY": (message(b"d", b"abc") + message(b"c") + message(b"f", b"why\0") + SYNC, "any"),
    "a FunctionCall": (message(b"F", struct.pack("!IHHH", 1, 0, 0, 0)) + SYNC, "any"),
    "a password in a session": (message(b"p", b"secret\0") + SYNC, "any"),
    "a start-up packet in a session": (startup(), "any"),
    "an SSLRequest in a session": (struct.pack("!II", 8, SSL_REQUEST), "any"),
    "a TLS ClientHello in a session": (client_hello(), "any"),
    "an HTTP request in a session": (b"GET / HTTP/1.1\r\n\r\n", "any"),
    "a Terminate with a body": (message(b"X", b"abc"), "any"),
    "a message after Terminate": (TERMINATE + simple("SELECT 1"), "any"),
    "two thousand statements that stay open": (b"".join(parse(f"s{n}", f"SELECT {n}") for n in range(2000)) + SYNC, None),
    "two thousand portals that stay open": (
        parse("", "SELECT 1") + b"".join(bind(f"p{n}") for n in range(2000)) + SYNC, None),
}


def first_bytes(data):
    conn = connect()
    try:
        conn.sendall(data)
    except ConnectionError:
        pass
    # Still open while others ask.
    yield conn
    end, code = drain(conn, 0.2)
    yield f"{end} {code}" if code else end


def in_session(data, expected):
    conn = open_session()
    if expected == "any":
        try:
            conn.sendall(data)
        except ConnectionError:
            pass
        yield conn
        end, code = drain(conn, 0.2)
        yield f"{end} {code}" if code else end
        return
    # A text of this kind ends with one ReadyForQuery for each Sync or Query.
    ends = sum(1 for kind, _ in messages_of(data) if kind in (b"S", b"Q"))
    conn.sendall(data)
    messages = []
    for _ in range(ends):
        messages += read_until_ready(conn)
    code = state_of(messages)
    good = code is None if expected is None else (code or "").startswith(expected)
    expect(good, f"expected {expected or 'no error'}, found {code}: {messages[:5]}")
    yield conn
    ask_one(conn)
    yield code or "no error"


def byte_by_byte():
    """A patient client that sends one byte at a time is answered."""
    conn = connect()
    for data in (startup(), simple("SELECT 1")):
        for byte in data:
            conn.sendall(bytes([byte]))
            time.sleep(0.002)
        messages = read_until_ready(conn)
    expect(any(kind == b"D" for kind, _ in messages), f"expected a row, found {messages}")
    yield conn
    yield "answers"


def plain_after_refused_encryption():
    """SSLRequest and GSSENCRequest are answered by one letter; a plain session follows on the same connection."""
    conn = connect()
    for request in (GSS_REQUEST, SSL_REQUEST):
        conn.sendall(struct.pack("!II", 8, request))
        answer = read_exactly(conn, 1)
        expect(answer in (b"N", b"S", b"G"), f"answer to a request for encryption: expected N, found {answer!r}")
        if answer != b"N":
            yield conn
            yield f"offers {answer!r}"
            return
    conn.sendall(startup())
    read_until_ready(conn)
    ask_one(conn)
    yield conn
    yield "answers"


def unknown_minor_version():
    """A newer minor version of the protocol is negotiated: the server offers the one it has, or accepts."""
    conn = connect()
    conn.sendall(startup((3 << 16) + 2, b"user\0anyone\0database\0anything\0_pq_.no_such\0on\0\0"))
    kinds = [kind for kind, _ in read_until_ready(conn)]
    ask_one(conn)
    yield conn
    yield "negotiates" if b"v" in kinds else "accepts"


def opened_and_dropped(count, greet, reset):
    """Connections opened and dropped at once, with or without a start-up packet, politely or by a reset."""
    conns = []
    for _ in range(count):
        conn = connect()
        if greet:
            conn.sendall(startup())
        if reset:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.close()
    yield conns
    yield "dropped"


def held_open(count, data):
    """Connections that stay open without a word, or in the middle of one."""
    conns = []
    for _ in range(count):
        conn = connect()
        conn.sendall(data)
        conns.append(conn)
    yield conns
    yield "held"


def unread_result(count):
    """Clients that ask for much and never read."""
    conns = []
    for _ in range(count):
        conn = open_session()
        conn.sendall(simple("SELECT * FROM generate_series(1, 5000000)"))
        conns.append(conn)
    time.sleep(0.3)
    yield conns
    yield "held"


def too_large():
    """A message that is larger than the server accepts is refused, with the reason, and ends the connection."""
    conn = open_session()
    conn.sendall(simple(" " * 5_000_000 + "SELECT 1"))
    end, code = drain(conn, 20)
    same("its refusal", code, "54000")
    yield conn
    yield f"{end} {code}"


def sessions_beyond_the_limit(count):
    """More sessions than serve.connections_max (500): those beyond it are closed, those within it go on, and places are free again."""
    conns, refused = [], 0
    for _ in range(count):
        conn = connect()
        try:
            conn.sendall(startup())
            read_until_ready(conn)
            conns.append(conn)
        except (EOFError, ConnectionError):
            conn.close()
            refused += 1
    expect(400 < len(conns) <= 500, f"sessions of {count}: expected at most 500, found {len(conns)}, {refused} refused")
    ask_one(conns[0])
    ask_one(conns[-1])
    for conn in conns:
        conn.close()
    # Their places are free as soon as the server has read that they are gone.
    started = time.monotonic()
    while not is_let_in():
        expect(time.monotonic() - started < PATIENCE, "a session after them: expected within 5 s, found none")
        time.sleep(0.05)
    yield []
    yield f"{refused} refused"


def is_let_in():
    try:
        open_session().close()
        return True
    except (EOFError, ConnectionError):
        return False


def reset_during_result():
    conn = open_session()
    conn.sendall(simple("SELECT * FROM generate_series(1, 5000000)"))
    conn.recv(1000)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()
    yield conn
    yield "dropped"


def unread_queries(count):
    """Many queries in one text of bytes, dropped before their answers are read."""
    conn = open_session()
    conn.settimeout(2)
    try:
        conn.sendall(simple("SELECT 1") * count)
    except (TimeoutError, ConnectionError):
        pass
    yield conn
    yield "dropped"


def many_syncs(count):
    conn = open_session()
    conn.sendall(SYNC * count)
    for _ in range(count):
        read_until_ready(conn)
    ask_one(conn)
    yield conn
    yield "answers"


def half_closed():
    """A client that has said all it wants still reads its answer, or finds the connection closed."""
    conn = open_session()
    conn.sendall(simple("SELECT 1"))
    conn.shutdown(socket.SHUT_WR)
    yield conn
    yield drain(conn, PATIENCE)[0]


def terminated():
    """Terminate ends a session; the server closes the connection."""
    conn = open_session()
    conn.sendall(TERMINATE)
    yield conn
    end = drain(conn, PATIENCE)[0]
    expect(end == "closes", f"after Terminate: expected a closed connection, found that the server {end}")
    yield end


def cancelled_by_a_stranger():
    """A cancel request with the process of a session but another key changes nothing."""
    conn = connect()
    conn.sendall(startup())
    keys = [body for kind, body in read_until_ready(conn) if kind == b"K"]
    expect(keys, "expected BackendKeyData, found none")
    conn.sendall(simple("SELECT count(*) FROM generate_series(1, 2000000)"))
    for guess in (0, 1, 0xFFFFFFFF):
        stranger = connect()
        stranger.sendall(struct.pack("!II", 16, CANCEL) + keys[0][:4] + struct.pack("!I", guess))
        stranger.close()
    code = state_of(read_until_ready(conn))
    expect(code is None, f"expected the result of a query that a stranger wanted to cancel, found {code}")
    yield conn
    yield "answers"


def cases():
    """Each case by name: a generator that gives what stays open while others ask, then what was seen."""
    found = {name: (first_bytes, data) for name, data in FIRST_BYTES.items()}
    found |= {name: (in_session, *case) for name, case in IN_SESSION.items()}
    return found | {
        "byte by byte": (byte_by_byte,),
        "plain after refused encryption": (plain_after_refused_encryption,),
        "a newer minor version": (unknown_minor_version,),
        "300 connections dropped": (opened_and_dropped, 300, False, False),
        "300 connections reset": (opened_and_dropped, 300, False, True),
        "100 sessions dropped": (opened_and_dropped, 100, True, False),
        "100 sessions reset": (opened_and_dropped, 100, True, True),
        "50 connections that say nothing": (held_open, 50, b""),
        "50 start-up packets never finished": (held_open, 50, startup()[:12]),
        "a Query of 5 MB": (too_large,),
        "50 start-up packets of 1 GB": (held_open, 50, struct.pack("!II", 1 << 30, 196608)),
        "1,000 sessions": (sessions_beyond_the_limit, 1000),
        "5 results never read": (unread_result, 5),
        "a reset during a result": (reset_during_result,),
        "20,000 queries never read": (unread_queries, 20_000),
        "10,000 Syncs": (many_syncs, 10_000),
        "a half-closed connection": (half_closed,),
        "Terminate": (terminated,),
        "a stranger's cancel": (cancelled_by_a_stranger,),
    }


def others_are_served(name):
    started = time.monotonic()
    try:
        conn = open_session()
        ask_one(conn)
        conn.sendall(TERMINATE)
        conn.close()
    except (OSError, EOFError) as failure:
        raise Unmet(f"{name}: expected that another connection is served, found {failure!r}") from failure
    took = time.monotonic() - started
    expect(took < PATIENCE, f"{name}: expected an answer to another connection within {PATIENCE} s, found {took:.1f} s")
    return took


def run(name, case):
    """Runs one case; returns what was seen and how long another connection waited."""
    steps = case[0](*case[1:])
    try:
        held = next(steps)
        took = others_are_served(name)
        seen = next(steps)
    except (OSError, EOFError) as failure:
        raise Unmet(f"{name}: expected an answer, found {failure!r}") from failure
    except Unmet as unmet:
        raise unmet if str(unmet).startswith(name) else Unmet(f"{name}: {unmet}") from unmet
    for conn in held if isinstance(held, list) else [held]:
        conn.close()
    return seen, took


def session():
    others_are_served("before all cases")
    seen, slowest = {}, 0.0
    for name, case in cases().items():
        if ONLY in name:
            seen[name], took = run(name, case)
            slowest = max(slowest, took)
            others_are_served(f"after {name}")
    return {"cases": len(seen), "slowest_s": round(slowest, 3), "seen": seen}


report(session)
