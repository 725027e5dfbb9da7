"""Prints the tables of check_coverage.sh, which calls it."""

import collections
import csv
import datetime
import json
import pathlib
import sys

from coverage import FIGURES, FURTHER, figure_cells, further_cells, further_hits, speed
from markdown import table

folder = pathlib.Path(sys.argv[1])


def rows(path):
    return csv.DictReader(path.open())


def lake_tables(lake, first):
    to = folder / f"{lake}.coverage"
    minimum = json.loads((to / "bundle.json").read_text())["demand"]["history_days_min"]
    actual = {(r["item_id"], r["day"][:10]): float(r["units"]) if r["in_stock"] == "true" else None for r in rows(to / "actual.csv")}
    leads = {r["item_id"]: int(r["days"] or 7) for r in rows(to / "lead_times.csv")}
    # By (lead time or day, class of item, figure): days and hits of each item and week.
    by = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0]))

    def add(path, start, kind_of):
        for row in rows(path):
            item, step = row["item_id"], int(row["step"])
            kind = kind_of(item)
            days = range(leads[item]) if step == 0 else [step - 1]
            # An item that was never seen after a date has no row there: nothing was sold.
            units = [actual.get((item, str(start + datetime.timedelta(days=d))), 0.0) for d in days]
            if None in units:
                continue
            when = (start + datetime.timedelta(days=days[0])).toordinal() // 7
            for name, _, hit in FIGURES:
                cell = by[step == 0, kind, name][item, when]
                cell[0] += 1
                cell[1] += hit(sum(units), float(row["q10"]), float(row["q90"]))
            for name, hits in further_hits(sum(units), row).items():
                for ties, hit in enumerate(hits):
                    cell = by[step == 0, kind, name, ties][item, when]
                    cell[0] += 1
                    cell[1] += hit

    for week in range(5):
        start = datetime.date.fromisoformat(first) + datetime.timedelta(days=7 * week)
        kinds = {r["item_id"]: speed(r, minimum) for r in rows(to / f"kinds.{start}.csv")}
        add(to / f"quantiles.{start}.csv", start, kinds.__getitem__)
    trainings = sorted(to.glob("new_items.*.csv"))
    several = f"new, {len(trainings)} trainings"
    for path in trainings:
        add(path, datetime.date.fromisoformat(path.name.split(".")[1]), lambda item: several)
    kinds_of_all = ["fast", "slow", "lumpy", "dormant"]
    trainings = sorted(to.glob("trained_then.*.csv"))
    then = {kind: f"{kind}, {len(trainings)} trainings" for kind in kinds_of_all}
    for path in trainings:
        start = datetime.date.fromisoformat(path.name.split(".")[1])
        kinds = {r["item_id"]: then.get(speed(r, minimum), "new then") for r in rows(to / f"kinds.{start}.csv")}
        add(path, start, kinds.__getitem__)
    lines, further = [], []
    for lead in (False, True):
        for kind in (*(name for kind in kinds_of_all for name in (kind, then[kind])), "new", several):
            cells = [by.get((lead, kind, name)) for name, *_ in FIGURES]
            if cells[0]:
                names = ["lead times" if lead else "days", kind]
                lines.append([*names, *figure_cells(cells)])
                further.append([*names, *further_cells({name: [by[lead, kind, name, ties] for ties in (0, 1)] for name in FURTHER})])
    head = ["forecasts of", "items that sell", "items", "forecasts", "weeks", *(name for name, *_ in FIGURES), "within"]
    last = datetime.date.fromisoformat(first) + datetime.timedelta(days=28)
    return f"**{lake}**, model of {first}, forecasts of five dates a week apart, the last of {last}.\n\n" + table(head, lines) + (
        "\n\nThe other levels, shares without ties and with them:\n\n") + table([*head[:2], *FURTHER], further)


print("\n\n".join(lake_tables(*lake.split(":")) for lake in sys.argv[2:]))
