"""Compares intentcast with what an engineer would write instead, on ten tasks with the same rows and dates.

usage: run.py --binary INTENTCAST --data DIR --work DIR [TASK ...]
       run.py --table

Needs the packages of requirements.txt. Each task's split has a hash in splits.json: rows that differ stop the run. Results are
results/TASK.json next to this file; --table prints them all.
"""

import argparse
import hashlib
import json
import pathlib
import sys
import time

import demand
import intents
import items
import table
from job import Job
from tasks import TASKS

HERE = pathlib.Path(__file__).parent
LESS_IS_BETTER = {"log_loss", "pinball"}


def checker(task):
    """Compares the rows of a split with those of the first run."""

    def check(parts):
        text = hashlib.sha256()
        for name, rows in sorted(parts.items()):
            text.update(name.encode() + rows.to_csv(index=False).encode())
        path = HERE / "splits.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        found = {"rows": {name: len(rows) for name, rows in parts.items()}, "sha256": text.hexdigest()}
        if known.setdefault(task.name, found) != found:
            raise SystemExit(f"{task.name}: expected the split {known[task.name]}, got {found}")
        path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")

    return check


def run(task, options):
    job = Job(options.binary, options.data, options.work, task)
    began = time.monotonic()
    if task.kind == "intent":
        found = intents.run(job, checker(task))
    elif task.kind == "demand":
        found = demand.run(job, checker(task))
    elif task.kind == "items":
        found = items.run(job, checker(task))
    else:
        found = table.run(job, checker(task), options.data)
    found["seconds"] = round(time.monotonic() - began)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{task.name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{task.name}: {found['seconds']} s", file=sys.stderr)


def verdict(metric, figures):
    """Says how ours stands against one rival: better, worse, or not distinguishable by the paired interval."""
    difference, low, high = figures[f"{metric}_difference"]
    sign = -1 if metric in LESS_IS_BETTER else 1
    if low <= 0 <= high:
        return f"{difference:+.4f} ({low:+.4f} to {high:+.4f}): even"
    return f"{difference:+.4f} ({low:+.4f} to {high:+.4f}): {'better' if difference * sign > 0 else 'worse'}"


def print_table():
    print("| task | rows | metric | model | value | AUC | ours minus it (95 %) | settings tried |")
    print("|---|---|---|---|---|---|---|---|")
    for task in TASKS:
        path = HERE / "results" / f"{task.name}.json"
        if not path.exists():
            print(f"| {task.name} | not run | | | | | | |")
            continue
        found = json.loads(path.read_text())
        metric = found["metric"]
        for name, figures in found["models"].items():
            difference = "" if name == "intentcast" else verdict(metric, figures)
            auc = f"{figures['auc']:.4f}" if "auc" in figures else ""
            cells = [
                task.name,
                found["rows"],
                metric,
                name,
                f"{figures[metric]:.4f}",
                auc,
                difference,
                figures["settings"],
            ]
            print("| " + " | ".join(map(str, cells)) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary")
    parser.add_argument("--data")
    parser.add_argument("--work")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("tasks", nargs="*")
    options = parser.parse_args()
    if options.table:
        return print_table()
    if not (options.binary and options.data and options.work):
        parser.error("expected --binary, --data and --work")
    unknown = set(options.tasks) - {task.name for task in TASKS}
    if unknown:
        parser.error(f"expected tasks of tasks.py, got {', '.join(sorted(unknown))}")
    for task in TASKS:
        if not options.tasks or task.name in options.tasks:
            run(task, options)
    return print_table()


if __name__ == "__main__":
    main()
