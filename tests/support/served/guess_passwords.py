"""Guesses a user's password: 500 times on 20 connections by psycopg, and with 20 exchanges that were begun before the first guess.

Usage: guess_passwords.py HOST PORT NAME PASSWORD. Prints one line of JSON with the number of guesses that the server looked at; exits
with 1 and a message where an expectation fails.
"""

import base64
import concurrent.futures
import re
import socket
import ssl
import struct
import sys
import time

import psycopg

from expectations import expect, report
from wire import SSL_REQUEST, message, read_message, startup

HOST, PORT, NAME, PASSWORD = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
LOOKED_AT, TOO_SOON = "wrong name or password", "too many wrong passwords"


def begun():
    """A connection whose exchange waits for the proof of a password, and what the server sent."""
    conn = socket.create_connection((HOST, PORT), timeout=30)
    conn.sendall(struct.pack("!II", 8, SSL_REQUEST))
    expect(conn.recv(1) == b"S", "TLS: expected S")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    conn = context.wrap_socket(conn)
    conn.sendall(startup(body=b"user\0" + NAME.encode() + b"\0database\0shop\0\0"))
    read_message(conn)
    first = b"n,,n=,r=0123456789abcdef"
    conn.sendall(message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first))
    kind, body = read_message(conn)
    expect(kind == b"R", f"exchange: expected R, found {kind!r} {body!r}")
    return conn, body[4:].decode()


def end(conn, server_first):
    """Sends a wrong proof; returns the server's answer."""
    nonce = server_first.split(",")[0]
    proof = base64.b64encode(bytes(32)).decode()
    conn.sendall(message(b"p", f"c=biws,{nonce},p={proof}".encode()))
    answer = read_message(conn)[1].decode(errors="replace")
    conn.close()
    return answer


def guess(password, name=NAME):
    try:
        with psycopg.connect(host=HOST, port=PORT, user=name, password=password, dbname="shop", sslmode="require"):
            return "let in"
    except psycopg.OperationalError as failure:
        return str(failure)


def is_early(answer):
    """Whether a guess has begun a wait, or came at least three seconds before the end of one."""
    left = re.search(r"try again in (\d+) s", answer)
    return LOOKED_AT in answer or (left is not None and int(left[1]) >= 4)


def session():
    opened = [begun() for _ in range(20)]
    answers = [end(*one) for one in opened]
    looked_at = sum(LOOKED_AT in answer for answer in answers)
    expect(all(LOOKED_AT in a or TOO_SOON in a for a in answers), f"wrong proofs: found {answers}")
    expect(looked_at <= 6, f"exchanges begun before the first guess: expected 6 guesses at most, found {looked_at}")
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(guess, [f"guess {number}" for number in range(500)]))
    others = [answer for answer in answers if LOOKED_AT not in answer and TOO_SOON not in answer]
    expect(not others, f"guesses: found {others[:3]}")
    looked_at += sum(LOOKED_AT in answer for answer in answers)
    for number in range(8):
        guess(f"guess {number}", "unknown")
    expect(LOOKED_AT in guess("x", "another"), "a guess for another name: expected to be looked at")
    # Early in a wait, which is then longer than an attempt takes on a busy machine.
    while not is_early(answer := guess("another guess")):
        time.sleep(0.2)
    looked_at += LOOKED_AT in answer
    last = guess(PASSWORD)
    expect(TOO_SOON in last, f"the right password after them: expected {TOO_SOON!r}, found {last!r}")
    return {"looked_at": looked_at}


report(session)
