"""Messages of PostgreSQL's protocol, byte by byte. Shared by the sessions that speak it themselves."""

import struct

from expectations import expect

SSL_REQUEST, GSS_REQUEST, CANCEL = 80877103, 80877104, 80877102


def startup(version=196608, body=b"user\0anyone\0database\0anything\0\0"):
    return struct.pack("!II", len(body) + 8, version) + body


def message(kind, body=b"", length=None):
    return kind + struct.pack("!i", len(body) + 4 if length is None else length) + body


def read_exactly(conn, size):
    found = b""
    while len(found) < size:
        part = conn.recv(min(size - len(found), 1 << 20))
        if not part:
            raise EOFError
        found += part
    return found


def read_message(conn):
    kind, length = struct.unpack("!ci", read_exactly(conn, 5))
    expect(4 <= length < 1 << 30, f"length of an answer {kind!r}: expected 4 bytes or more, found {length}")
    return kind, read_exactly(conn, length - 4)
