"""Prints the tables of compare_intent_inputs.sh, which calls it."""

import collections
import csv
import datetime
import json
import pathlib
import random
import sys

from coverage import FIGURES, figure_cells, speed
from markdown import table
from ranking import mean, resample, spread

folder = pathlib.Path(sys.argv[1])
LEVELS = {"q05": 0.05, "q10": 0.10, "q25": 0.25, "q50": 0.50, "q75": 0.75, "q90": 0.90, "q95": 0.95}
DRAWS = 1000
# The days of a night that intents are about, and the fewest nights to learn a weight from, as in sql/score/intent_weight.sql.
HORIZON_DAYS, NIGHTS_MIN = 7, 4


def rows(path):
    return csv.DictReader(path.open())


def after(day, days):
    return str(datetime.date.fromisoformat(day) + datetime.timedelta(days=days))


def actual_days(to):
    """Returns the days in stock by (item, day)."""
    actual = {}
    for row in rows(to / "actual.csv"):
        if row["in_stock"] == "true":
            actual[row["item_id"], row["day"][:10]] = row | {"units": float(row["units"])}
    return actual


def pinball_losses(path, actual, start):
    """Returns the mean pinball loss by (item, day)."""
    found = {}
    for row in rows(path):
        key = row["item_id"], after(start, int(row["step"]) - 1)
        if int(row["step"]) and key in actual:
            units = actual[key]["units"]
            over = [(level, units - float(row[q])) for q, level in LEVELS.items()]
            found[key] = mean([max(level * by, (level - 1) * by) for level, by in over])
    return found


def ablation(lake, start):
    to = folder / f"{lake}.figures"
    actual = actual_days(to)
    seeds = sorted(path.name.split(".")[1] for path in to.glob("true.*.csv"))
    arms = [[pinball_losses(to / f"{name}.{seed}.csv", actual, start) for seed in seeds] for name in ("false", "true")]
    date = datetime.date.fromisoformat
    age = lambda key: int(actual[key]["days_since_first_seen"]) - (date(key[1]) - date(start)).days
    kinds = {
        "all": lambda key: True,
        "seen for 14 to 27 days": lambda key: 14 <= age(key) < 28,
        "seen for 28 to 55 days": lambda key: 28 <= age(key) < 56,
        "longer": lambda key: age(key) >= 56,
        "promoted days": lambda key: actual[key]["promoted"] == "true",
    }
    lines = []
    for kind, wanted in kinds.items():
        # For each item: its days, and the sum of its losses by arm and training.
        by_item = collections.defaultdict(list)
        for key in filter(wanted, arms[0][0]):
            by_item[key[0]].append(key)
        items = [(len(keys), [[sum(losses[key] for key in keys) for losses in arm] for arm in arms]) for keys in by_item.values()]
        if len(items) < 5:
            lines.append([kind, str(len(items)), "", "", "", "too few"])
            continue

        def means(drawn):
            """Returns the mean loss by arm and training."""
            days = sum(n for n, _ in drawn)
            return [[sum(sums[arm][k] for _, sums in drawn) / days for k in range(len(seeds))] for arm in range(2)]

        chance = random.Random(1)
        without, with_input = map(mean, means(items))
        differences = []
        for _ in range(DRAWS):
            drawn = means(chance.choices(items, k=len(items)))
            differences.append((mean(resample(drawn[1], chance)) - mean(resample(drawn[0], chance))) / without)
        lines.append([kind, str(len(items)), f"{sum(n for n, _ in items):,}", f"{without:.4g}", f"{with_input:.4g}",
                      spread(with_input / without - 1, differences, "+.1%")])
    read = all(json.loads((to / f"true.{seed}.json").read_text())["demand"].get("intents") for seed in seeds)
    note = "" if read else " The second model found too few nights to read and has no such input."
    head = ["items", "items", "days", "without", "with", "difference (95 %)"]
    return f"**{lake}**, forecasts of {start}, {len(seeds)} trainings of each.{note}\n\n" + table(head, lines)


def reconciliation(lake, start):
    """Returns the squared errors of each night's forecasts by level, for the week that intents are about and for the days after
    it: the root for the network alone, and the ratio to the network's error for the other methods."""
    to = folder / f"{lake}.figures"
    actual = actual_days(to)
    nights = collections.defaultdict(list)
    for row in rows(to / "nights.csv"):
        nights[row["night"][:10]].append(row)
    levels = {"item": lambda row: row["item_id"], "category": lambda row: row["category"], "total": lambda row: ""}
    methods = ["network alone", "intents alone, by category", "half of each, by category",
               "**as published: learned weight, by category**", "learned weight, item by item", "days 8 to 28, network alone",
               "**days 8 to 28, as published**"]
    errors = {method: {level: [] for level in levels} for method in methods}
    weights = []
    for night, forecasts in sorted(nights.items()):
        if after(night, 28) > after(start, 28):
            continue
        network, intents, published = (collections.Counter() for _ in range(3))
        for row in forecasts:
            if row["intent_units"]:
                network[row["category"]] += float(row["model_mean"])
                intents[row["category"]] += float(row["intent_units"])
                published[row["category"]] += float(row["mean"])
        # The weight is the same for all categories. It is read where network and intents differ most.
        widest = max((name for name in network if network[name]), key=lambda name: abs(intents[name] - network[name]))
        weight = (published[widest] - network[widest]) / (intents[widest] - network[widest])
        # The first nights have too few outcomes of earlier nights to learn a weight from. Later nights may learn a weight of 0.
        if sum(after(other, HORIZON_DAYS) <= night for other in nights) < NIGHTS_MIN:
            continue
        weights.append(abs(round(weight, 9)))
        sums = {method: {level: collections.Counter() for level in levels} for method in methods}
        units = {part: {level: collections.Counter() for level in levels} for part in ("week", "after")}
        for row in forecasts:
            outcome = actual.get((row["item_id"], row["day"][:10]))
            if outcome is None:
                continue
            alone, mean_ = float(row["model_mean"]), float(row["mean"])
            if row["intent_units"]:
                name = row["category"]
                scaled = alone * intents[name] / network[name] if network[name] else float(row["intent_units"])
                by_item = alone + weight * (float(row["intent_units"]) - alone)
                forecast, part = dict(zip(methods, [alone, scaled, (alone + scaled) / 2, mean_, by_item])), "week"
            else:
                forecast, part = dict(zip(methods[5:], [alone, mean_])), "after"
            for level, member in levels.items():
                units[part][level][member(row)] += outcome["units"]
                for method, value in forecast.items():
                    sums[method][level][member(row)] += value
        for place, method in enumerate(methods):
            for level in levels:
                truth = units["week" if place < 5 else "after"][level]
                errors[method][level].append(mean([(sums[method][level][name] - units_sold) ** 2 for name, units_sold in truth.items()]))
    if len(weights) < 5:
        most = max(weights, default=0)
        found = f"{len(weights)} of {len(nights)} nights had a weight, at most {most:.2f}"
        return f"**{lake}**: {found}: nothing to compare."
    chance = random.Random(2)
    draws = [chance.choices(range(len(weights)), k=len(weights)) for _ in range(DRAWS)]
    lines = []
    for place, method in enumerate(methods):
        cells = [method]
        for level in levels:
            errors_here, alone = errors[method][level], errors[methods[0 if place < 5 else 5]][level]
            if method in (methods[0], methods[5]):
                cells.append(f"{mean(errors_here) ** 0.5:.3g} units")
            else:
                drawn = [mean([errors_here[k] for k in draw]) / mean([alone[k] for k in draw]) for draw in draws]
                cells.append(f"× {spread(mean(errors_here) / mean(alone), drawn, '.2f')}")
        lines.append(cells)
    head = ["", *levels]
    nights_and_weights = f"{len(weights)} nights a week apart, weights {min(weights):.2f} to {max(weights):.2f}"
    return f"**{lake}**, {nights_and_weights}.\n\n" + table(head, lines)


def published_coverage(lake, start):
    """Returns how often intervals covered the outcome on the days of the week that intents are about: the intervals of the
    network, and the published ones."""
    to = folder / f"{lake}.figures"
    actual = actual_days(to)
    minimum = json.loads(next(iter(sorted(to.glob("true.*.json")))).read_text())["demand"]["history_days_min"]
    kinds_by_night, network_by_night = {}, {}
    by = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0]))
    moved = []
    for row in rows(to / "nights.csv"):
        night, day, alone, mean_ = row["night"][:10], row["day"][:10], float(row["model_mean"]), float(row["mean"])
        outcome = actual.get((row["item_id"], day))
        if outcome is None or not row["intent_units"]:
            continue
        if night not in kinds_by_night:
            kinds_by_night[night] = {r["item_id"]: speed(r, minimum) for r in rows(to / f"kinds.{night}.csv")}
            network_by_night[night] = {(r["item_id"], int(r["step"])): r for r in rows(to / f"network.{night}.csv")}
        step = (datetime.date.fromisoformat(day) - datetime.date.fromisoformat(night)).days + 1
        forecast = network_by_night[night].get((row["item_id"], step))
        # An item without a class on that night was first seen later, so the night did not forecast it.
        kind = kinds_by_night[night].get(row["item_id"])
        factor = mean_ / alone if alone else 1.0
        # Nights that had not learned a weight yet published the output of the network.
        if kind is None or forecast is None or abs(factor - 1.0) < 1e-9:
            continue
        moved.append(factor)
        when = datetime.date.fromisoformat(day).toordinal() // 7
        for method, quantiles in (("the network", forecast), ("as published", row)):
            for name, _, hit in FIGURES:
                cell = by[method, kind, name][row["item_id"], when]
                cell[0] += 1
                cell[1] += hit(outcome["units"], float(quantiles["q10"]), float(quantiles["q90"]))
    lines = []
    for kind in ("fast", "slow", "lumpy", "dormant", "new"):
        for method in ("the network", "as published"):
            cells = [by.get((method, kind, name)) for name, *_ in FIGURES]
            if cells[0]:
                lines.append([kind, method, *figure_cells(cells)])
    head = ["items that sell", "by", "items", "forecasts", "weeks", *(name for name, *_ in FIGURES), "within"]
    if not moved:
        return f"**{lake}**: no night moved its forecasts."
    moved.sort()
    factors = f"the middle four fifths of the factors {moved[len(moved) // 10]:.2f} to {moved[len(moved) * 9 // 10]:.2f}"
    return f"**{lake}**, days of the week after each night, {factors}.\n\n" + table(head, lines)

lakes = [lake.split(":") for lake in sys.argv[2:]]
for title, tables in (("Intents of earlier nights as an input", ablation), ("Reconciliation", reconciliation),
                      ("Coverage as published", published_coverage)):
    print(f"## {title}\n\n" + "\n\n".join(tables(*lake) for lake in lakes) + "\n")
