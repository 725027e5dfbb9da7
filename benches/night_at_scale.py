#!/usr/bin/env python3
"""Measures seconds and peak memory of the whole job at scale: simulate, train, a first night, a second night.

    cargo build --release --locked && python3 benches/night_at_scale.py --folder /path/with/space

The defaults make one million users and 50 million events, and train on a small sample, because the night is what is measured.
Peak memory is the largest resident set of each process, as the kernel counts it. Steps whose result exists are skipped, so an
interrupted run resumes.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from datetime import date, timedelta

STAGES_WITHOUT_ROWS = {"checks", "publish", "look_back"}
SMALL_TRAINING = ["train.rows_max=16000", "train.epochs_max=2", "train.as_of_dates=2", "demand.as_of_dates=2"]


def run(binary, *arguments):
    """Runs one verb and returns (seconds, peak MiB, standard output)."""
    print("$ intentcast", *arguments, file=sys.stderr)
    started = time.monotonic()
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"intentcast {arguments[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, usage.ru_maxrss / 1024, output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--binary", default="target/release/intentcast")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=155)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    lake, output = str(options.folder / "lake"), str(options.folder / "out")
    settings = [part for pair in options.set for part in ("--set", pair)]
    places = ["--lake", lake, "--output", output]
    # The second night is the day after the lake's last day. The first night must not read the files of that day.
    first = date(2026, 1, 1) + timedelta(days=options.days - 1)
    nights = [str(first), str(first + timedelta(days=1))]

    print("| step | seconds | rows | rows per second | peak MiB |\n|---|---|---|---|---|")

    def row(name, seconds, rows, peak):
        rate = round(rows / seconds) if rows and seconds else ""
        print(f"| {name} | {seconds:.1f} | {rows or ''} | {rate} | {round(peak) if peak else ''} |", flush=True)

    if not (options.folder / "lake.done").exists():
        size = ["--users", str(options.users), "--items", str(options.items), "--days", str(options.days)]
        seconds, peak, printed = run(options.binary, "simulate", "--to", lake, *size, "--seed", "7")
        row("simulate", seconds, int(printed.split()[0]), peak)
        (options.folder / "lake.done").touch()
    if not (options.folder / "out/models/champion").exists():
        small = [part for pair in SMALL_TRAINING for part in ("--set", pair)]
        seconds, peak, printed = run(options.binary, *small, *settings, "train", *places, "--date", nights[0])
        row("train", seconds, None, peak)
        print(printed, file=sys.stderr)
        # Training has built the rollups. Deletes them, so that the first night does all of its work itself.
        shutil.rmtree(options.folder / "out/state")
    for name, night in zip(["first night", "second night"], nights):
        seconds, peak, printed = run(options.binary, *settings, "nightly", *places, "--date", night, "--format", "json")
        report = json.loads(printed)
        for stage, figures in sorted(report["stages"].items(), key=lambda item: -item[1]["seconds"]):
            row(f"{name}: {stage}", figures["seconds"], 0 if stage in STAGES_WITHOUT_ROWS else figures["rows"], None)
        row(f"**{name}**", seconds, report["table_rows"].get("intent"), peak)
        read = report["read"]
        print(
            f"{night}: {read['files_read']} event files and {read['bytes_read']} bytes read, {read['files_skipped']} "
            f"files skipped; {report['users_encoded']} users encoded, {report['users_kept']} from the cache",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
