#!/usr/bin/env python3
"""Asks a running server at a fixed rate, or with many clients at once, and prints latencies.

usage: load_server.py --http PORT --pg PORT --pid PID --date YYYY-MM-DD --users N {stored,now,mixed}

stored: GET /v1/users/{id}/intents at --rate a second (500) for --seconds (60)
now:    POST the same path with three events of that date, at --rate a second (20)
mixed:  --clients (100) at once: descriptions of tables, small and large queries, HTTP

Latencies count from the moment at which a request was due, so a server that falls behind shows it. Needs psycopg for `mixed`.
Run the server in release, on the same machine: what it and this script take together is what is measured.
"""

import argparse
import asyncio
import json
import random
import time


def percentiles(seconds):
    ordered = sorted(seconds)
    at = lambda share: 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return f"p50 {at(0.5):.2f} ms, p95 {at(0.95):.2f} ms, p99 {at(0.99):.2f} ms, largest {at(1):.2f} ms"


def resident_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} is gone")


class Http:
    """Connections that stay open, each for one request at a time."""

    def __init__(self, port):
        self.port, self.free = port, []

    async def ask(self, method, path, body=None):
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
        text = b"" if body is None else body.encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n"
        head += "Content-Type: application/json\r\n\r\n"
        writer.write(head.encode() + text)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        self.free.append((reader, writer))
        return int(answer.split(b" ", 2)[1])


def user_id(rng, users):
    return f"u{rng.randrange(users):07d}"


def visit(rng, date):
    def event(minute, kind, item):
        return {"ts": f"{date}T10:{minute:02d}:00Z", "event_type": kind, "item_id": f"i{item:06d}", "session_id": "now"}

    item = rng.randrange(1000)
    return json.dumps([event(1, "view", item), event(2, "view", rng.randrange(1000)), event(3, "cart", item)])


async def at_a_rate(options, request):
    """Sends requests when they are due, whether or not earlier ones have been answered."""
    rng, begun, waiting = random.Random(1), time.perf_counter() + 0.5, set()
    seconds, statuses = [], {}

    async def one(due):
        status = await request(rng)
        seconds.append(time.perf_counter() - due)
        statuses[status] = statuses.get(status, 0) + 1

    for number in range(int(options.rate * options.seconds)):
        due = begun + number / options.rate
        await asyncio.sleep(max(0, due - time.perf_counter()))
        task = asyncio.create_task(one(due))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    await asyncio.gather(*waiting)
    print(f"{options.what} at {options.rate} a second: {percentiles(seconds)}; answers by status {statuses}")


SMALL = "SELECT user_id, p_purchase FROM intent WHERE user_id = '{user}'"
LARGE = "SELECT * FROM intent LIMIT 20000"
GROUPED = "SELECT segment, count(*), avg(p_purchase) FROM intent GROUP BY segment"
COLUMNS = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'tables'"


async def mixed(options):
    import psycopg

    http, until = Http(options.http), time.perf_counter() + options.seconds
    seconds, errors = {}, []

    async def client(number):
        rng = random.Random(number)
        conninfo = f"host=127.0.0.1 port={options.pg} dbname=shop user=client{number}"
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            while time.perf_counter() < until:
                kind = rng.choices(["description", "small", "grouped", "large", "http"], [3, 4, 1, 1, 6])[0]
                user, begun = user_id(rng, options.users), time.perf_counter()
                try:
                    if kind == "http":
                        status = await http.ask("GET", f"/v1/users/{user}/intents")
                        assert status in (200, 404), status
                    else:
                        sql = {"description": COLUMNS, "small": SMALL, "grouped": GROUPED, "large": LARGE}[kind]
                        await (await connection.execute(sql.format(user=user))).fetchall()
                except Exception as error:  # counted, not fatal: this is what the script looks for
                    errors.append(f"{kind}: {error}")
                seconds.setdefault(kind, []).append(time.perf_counter() - begun)
                await asyncio.sleep(rng.random())

    await asyncio.gather(*(client(number) for number in range(options.clients)))
    for kind, of_kind in sorted(seconds.items()):
        print(f"{kind}: {len(of_kind)} asked, {percentiles(of_kind)}")
    print(f"errors: {len(errors)} {sorted(set(errors))[:3]}")


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["stored", "now", "mixed"])
    for name, kind in [("http", int), ("pg", int), ("pid", int), ("users", int), ("rate", float)]:
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--date")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=100)
    options = parser.parse_args()
    options.rate = options.rate or {"stored": 500, "now": 20}.get(options.what)
    http = Http(options.http)
    print(f"resident memory at the start: {resident_mib(options.pid):.0f} MiB")
    if options.what == "stored":
        await at_a_rate(options, lambda rng: http.ask("GET", f"/v1/users/{user_id(rng, options.users)}/intents"))
    elif options.what == "now":
        path = lambda rng: f"/v1/users/{user_id(rng, options.users)}/intents"
        await at_a_rate(options, lambda rng: http.ask("POST", path(rng), visit(rng, options.date)))
    else:
        await mixed(options)
    print(f"resident memory at the end: {resident_mib(options.pid):.0f} MiB")


asyncio.run(main())
