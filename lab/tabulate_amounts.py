"""Prints the tables of compare_amounts.sh, which calls it."""

import collections
import csv
import datetime
import json
import math
import pathlib
import random
import sys

from markdown import table
from ranking import Outcomes, Ranking, mean, means, resample, spread

folder = pathlib.Path(sys.argv[1])
losses, lakes = sys.argv[2].split(), [lake.split(":") for lake in sys.argv[3:]]
DRAWS, AMOUNTS = 200, ("units", "spend")


def outcomes(lake, first):
    """Returns, by week and user, units and spend of the seven days."""
    sums = [collections.defaultdict(lambda: [0.0, 0.0]) for _ in range(4)]
    for row in csv.DictReader((folder / f"{lake}.bought.csv").open()):
        week = (datetime.date.fromisoformat(row["day"][:10]) - first).days // 7
        if 0 <= week < 4:
            for at, amount in enumerate(AMOUNTS):
                sums[week][row["user_id"]][at] += float(row[amount] or 0)
    return sums


def errors(stem, actual, at):
    """Returns, by user, sums over the weeks: rows, actual, expected, absolute and squared differences."""
    sums = collections.defaultdict(lambda: [0.0] * 5)
    for week in range(4):
        for row in csv.DictReader((folder / "figures" / f"{stem}.{week}.csv").open()):
            amount, expected = actual[week].get(row["user_id"], (0.0, 0.0))[at], float(row[AMOUNTS[at]])
            gap = expected - amount
            for place, value in enumerate((1, amount, expected, abs(gap), gap * gap)):
                sums[row["user_id"]][place] += value
    return sums


def figures(user_sums, weight):
    rows, actual, expected, absolute, squared = (sum(weight[user] * sums[k] for user, sums in user_sums.items()) for k in range(5))
    return expected / actual, absolute / rows, math.sqrt(squared / rows)


def cells(trainings, draws, chance):
    """Yields the mean of each figure over the trainings, with the middle 95 % of draws of the users."""
    drawn = [[figures(sums, weight) for sums in trainings] for weight in draws]
    for k in range(3):
        whole, *parts = [[each[k] for each in draw] for draw in drawn]
        form = ".2f" if k == 0 or whole[0] >= 1 else ".3f"
        yield spread(mean(whole), [mean(resample(part, chance)) for part in parts], form)


def lake_table(lake, end):
    first = datetime.date.fromisoformat(end) - datetime.timedelta(days=28)
    actual, chance, draws = outcomes(lake, first), random.Random(7), None
    bought = Outcomes(folder / f"{lake}.bought.csv", str(first), 7)
    lines, trainings = [], 0
    for loss in losses + ["rate"]:
        cards = sorted((folder / "figures").glob(f"{lake},{loss},*.json"))
        stems = [path.with_suffix("").name for path in cards] or [f"{lake},{loss}"]
        trainings = max(trainings, len(stems))
        row = []
        for at in range(2):
            each = [errors(stem, actual, at) for stem in stems]
            if draws is None:
                users = sorted(each[0])
                samples = [chance.choices(users, k=len(users)) for _ in range(DRAWS)]
                draws = [collections.Counter(sample) for sample in [users, *samples]]
            row += cells(each, draws, chance)
        if cards:
            rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(4)]) for path in cards]
            row += [spread(*means(rankings, figure, draws, chance)) for figure in (Ranking.auc, Ranking.average_precision)]
            found = [json.loads(path.read_text())["figures"] for path in cards]
            row += [f"{found[0]['parameters_intent']:,.0f}", f"{min(card['train_seconds_intent'] for card in found):.0f}",
                    f"{max(card['users_scored_per_second'] for card in found):,.0f}"]
        else:
            row += [""] * 5
        lines.append(["rate of the last 90 days" if loss == "rate" else f"`{loss}`", *row])
    buyers = sum(units > 0 for week in actual for units, _ in week.values())
    head = ["loss"] + [f"{amount}: {figure}" for amount in AMOUNTS for figure in ("expected / actual", "MAE", "RMSE")]
    head += ["AUC of purchase", "AP of purchase", "parameters", "seconds of training", "users scored a second"]
    title = f"**{lake}**: {len(draws[0]):,} users, {buyers:,} weeks of buyers; trainings of each: {trainings}."
    return f"{title}\n\n" + table(head, lines)

print("\n\n".join(lake_table(lake, end) for lake, end in lakes))
