#!/usr/bin/env python3
"""Asks what an erasure costs, and whether one that is killed at any point is finished by the same command.

Usage: lab/check_erasure.py INTENTCAST FOLDER cost [USERS]     erases half of USERS (200000) and rewrites the lake
       lab/check_erasure.py INTENTCAST FOLDER kills [POINTS]   kills an erasure of a tenth of 300 users at POINTS (20) random moments

Needs a folder outside the checkout, and the libtorch of `make setup`. Prints a line of Markdown per run.
"""

import hashlib
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import time

FIRST, DATE = "2026-02-20", "2026-02-21"
SMALL = ["--set", "model.width=16", "--set", "model.layers=1", "--set", "train.epochs_max=1", "--set", "train.as_of_dates=2",
         "--set", "demand.as_of_dates=2", "--set", "demand.horizon_days=7", "--set", "demand.history_days_min=3"]
LOCKS = ["--set", "lock.heartbeat_seconds=1", "--set", "lock.expiry_seconds=2"]


def run(binary, arguments, expected=(0,), **options):
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, **options)
    if done.returncode not in expected:
        sys.exit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def shop(binary, folder, users, days):
    """Simulates a shop, trains a small model and runs a night; returns lake and output."""
    lake, output = folder / "lake", folder / "out"
    if not (output / "tables" / "runs").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(binary, ["simulate", "--to", str(lake), "--users", str(users), "--items", str(max(60, users // 20)), "--days", str(days), "--seed", "7"])
        places = ["--lake", str(lake), "--output", str(output)]
        run(binary, [*SMALL, "train", *places, "--date", FIRST])
        run(binary, [*SMALL, "nightly", *places, "--date", DATE])
    return lake, output


def table(binary, output, sql):
    return run(binary, ["sql", "--output", str(output), "--format", "csv", "-c", sql]).splitlines()[1:]


def bytes_below(folder):
    files = (file for file in pathlib.Path(folder).rglob("*") if file.is_file())
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def cost(binary, folder, users):
    lake, output = shop(binary, folder, users, 60)
    ids = table(binary, output, "SELECT user_id FROM intent ORDER BY user_id")
    ids = (ids + [f"unknown-{number}" for number in range(users)])[: users // 2]
    file = folder / "ids.txt"
    file.write_text("\n".join(ids))
    before = bytes_below(lake) | bytes_below(output)
    started = time.monotonic()
    printed = run(binary, ["erase", "--lake", str(lake), "--output", str(output), "--file", str(file), "--rewrite-lake", "--prove"])
    seconds = time.monotonic() - started
    after = bytes_below(lake) | bytes_below(output)
    written = sum(size for name, (size, at) in after.items() if before.get(name) != (size, at))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    total = sum(size for size, _ in before.values())
    print(printed, file=sys.stderr)
    print(f"| {users} | {len(ids)} | {seconds:.1f} | {total / 2**20:.0f} | {written / 2**20:.0f} | {peak:.0f} |")


def state_of(binary, lake, output, erased):
    """Returns a hash of all rows of the others: of the published tables and of the lake."""
    names = ", ".join(f"'{name}'" for name in sorted(erased))
    queries = [
        f"SELECT * FROM intent_history WHERE user_id NOT IN ({names}) ORDER BY run_date, user_id",
        f"SELECT * FROM recommendation_history WHERE user_id NOT IN ({names}) ORDER BY run_date, user_id, rank",
        "SELECT * FROM demand_history ORDER BY run_date, item_id, target_date",
    ]
    rows = [table(binary, output, sql) for sql in queries]
    raw = f"SELECT event_id, user_id, ts, price FROM raw_events WHERE user_id NOT IN ({names}) ORDER BY event_id, user_id, ts"
    rows.append(run(binary, ["sql", "--lake", str(lake), "--output", str(output), "--format", "csv", "-c", raw]))
    return hashlib.sha256(str(rows).encode()).hexdigest()


def kills(binary, folder, points):
    lake, output = shop(binary, folder / "before", 300, 90)
    ids = table(binary, output, "SELECT user_id FROM intent ORDER BY user_id")[:30]
    file = folder / "ids.txt"
    file.write_text("\n".join(ids))

    def command(lake, output):
        return [*LOCKS, "erase", "--lake", str(lake), "--output", str(output), "--file", str(file), "--rewrite-lake", "--prove"]

    def copied(name):
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "before", place)
        return place / "lake", place / "out"

    whole = copied("whole")
    started = time.monotonic()
    printed = run(binary, command(*whole))
    seconds = time.monotonic() - started
    erased = set(ids)
    for line in run(binary, ["sql", "--lake", str(lake), "--output", str(output), "--format", "csv", "-c",
                             "SELECT user_id, canonical_user_id FROM stitched"]).splitlines()[1:]:
        guest, login = line.split(",")[:2]
        if {guest, login} & erased:
            erased |= {guest, login}
    expected = state_of(binary, lake, output, erased)
    assert state_of(binary, *whole, erased) == expected, "rows of others changed"
    print(printed, file=sys.stderr)
    random.seed(1)
    for point in range(points):
        place = copied("killed")
        process = subprocess.Popen([binary, *command(*place)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = random.uniform(0.02, seconds)
        time.sleep(after)
        process.kill()
        process.wait()
        between = state_of(binary, *place, erased) == expected
        time.sleep(2.1)
        printed = run(binary, command(*place))
        ok = "\n0 files hold one of the ids" in printed and state_of(binary, *place, erased) == expected
        left = run(binary, ["erase", "--lake", str(place[0]), "--output", str(place[1]), "--file", str(file), "--rewrite-lake", "--dry-run"])
        gone = "would go from the lake: 0 rows in 0 files" in left
        print(f"| {point + 1} | {after:.2f} of {seconds:.2f} s | {'yes' if between else 'NO'} | {'yes' if ok and gone else 'NO'} |", flush=True)


def main():
    if len(sys.argv) < 4 or sys.argv[3] not in ("cost", "kills"):
        sys.exit(__doc__)
    binary, folder, what = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), sys.argv[3]
    binary = str(pathlib.Path(binary).resolve())
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    number = int(sys.argv[4]) if len(sys.argv) > 4 else {"cost": 200_000, "kills": 20}[what]
    {"cost": cost, "kills": kills}[what](binary, folder, number)


main()
