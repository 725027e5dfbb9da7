#!/usr/bin/env python3
"""How much memory does a training take when its users or items are many times what fits in memory? Simulates lakes with more and
more of them, trains one epoch on each, and prints the size of the training sets on disk and the largest resident set of each process:
overall, including the time in which the engine reads users and items, and at the ends of epochs.

    cargo build --release --locked && python3 benches/training_memory.py --folder /path/with/space

The networks are as small as possible, because the memory of the sets is measured and not that of the weights. Existing lakes and
figures are reused, so an interrupted run resumes.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

from night_at_scale import run

# Part of the log line at the end of an epoch.
EPOCH = ": epoch "

SMALL = ["model.backbone=rnn", "model.width=16", "model.layers=1", "train.epochs_max=1", "train.as_of_dates=8", "demand.width=4",
         "demand.horizon_days=7", "train.rows_max=100000000", "score.device=cpu"]


def resident(process):
    """Returns the resident set in MiB, or 0 when the process has ended."""
    try:
        found = re.search(r"VmRSS:\s*(\d+)", pathlib.Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) / 1024 if found else 0


def scratch(process):
    """Returns MiB of the open unnamed files of the process. They hold its training sets in the form that memory would hold."""
    found = 0
    try:
        for file in pathlib.Path(f"/proc/{process}/fd").iterdir():
            if os.readlink(file).endswith("(deleted)"):
                found += file.stat().st_size
    except OSError:
        # The process has ended or has just closed a file.
        pass
    return found / (1 << 20)


def train(binary, *arguments):
    """Returns (MiB of the sets, peak MiB, peak MiB at the ends of epochs, seconds, standard output)."""
    print("$ intentcast", *arguments, file=sys.stderr)
    started = time.monotonic()
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, epochs, sets = [], [], []

    def follow():
        for line in process.stderr:
            sys.stderr.write(line)
            if EPOCH in line:
                epochs.append(resident(process.pid))
                sets.append(scratch(process.pid))

    threads = [threading.Thread(target=follow), threading.Thread(target=lambda: printed.append(process.stdout.read()))]
    for thread in threads:
        thread.start()
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    if process.returncode:
        sys.exit(f"intentcast train ended with {process.returncode}")
    return max(sets, default=0), peak, max(epochs, default=0), time.monotonic() - started, printed[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--binary", default="target/release/intentcast")
    parser.add_argument("--shops", nargs="+", help="USERSxITEMS or USERSxITEMSxDATES; the default is 8 dates",
                        default=["3000x60", "12000x60", "48000x60", "48000x60x32", "3000x1000", "3000x4000", "3000x16000"])
    parser.add_argument("--memory-bytes-max", type=int, default=64 << 20, help="train.memory_bytes_max")
    parser.add_argument("--engine-bytes-max", type=int, default=512 << 20, help="engine.memory_bytes_max")
    options = parser.parse_args()
    limits = [f"train.memory_bytes_max={options.memory_bytes_max}", f"engine.memory_bytes_max={options.engine_bytes_max}"]
    settings = [part for pair in SMALL + limits for part in ("--set", pair)]
    head = ["users", "items", "dates", "training users", "windows", "training items", "windows", "MiB of both sets",
            "peak MiB", "after an epoch", "seconds"]
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", sep="\n")
    for shop in options.shops:
        users, items, *dates = map(int, shop.split("x"))
        folder = options.folder / f"{users}x{items}"
        figure = folder / f"figure{''.join(f'.{count}' for count in dates)}.json"
        # The dates are three days apart instead of a week, because the lake is not that many weeks long.
        close = [f"train.as_of_dates={count}" for count in dates] + ["train.as_of_step_days=3", "intents.horizon_days=3"] * len(dates)
        if not (folder / "lake.done").exists():
            size = ["--users", str(users), "--items", str(items), "--days", "142", "--seed", "7"]
            run(options.binary, "simulate", "--to", str(folder / "lake"), *size)
            (folder / "lake.done").touch()
        if not figure.exists():
            places = ["--lake", str(folder / "lake"), "--output", str(folder / "out"), "--date", "2026-05-20"]
            further = [part for pair in close for part in ("--set", pair)]
            *measured, printed = train(options.binary, *settings, *further, "train", *places)
            version = re.search(r"^model (\S+)", printed, re.M)[1]
            card = json.loads((folder / "out/models" / version / "bundle.json").read_text())["figures"]
            names = ["users_train", "windows_train", "items_train", "windows_train_demand"]
            figure.write_text(json.dumps([*(card[name] for name in names), *measured]))
        cells = [users, items, *(dates or [8]), *json.loads(figure.read_text())]
        print(f"| {' | '.join(f'{cell:,.0f}' for cell in cells)} |", flush=True)


main()
