"""Prints the tables of compare_networks.sh, which calls it."""

import csv
import datetime
import json
import pathlib
import random
import sys

from markdown import table
from ranking import Outcomes, Ranking, bootstrap_weights, mean, means, spread

folder = pathlib.Path(sys.argv[1])
networks = [network.split() for network in sys.argv[2].splitlines()]
forecasters = sys.argv[3].split()
lakes, shops = ([lake.split(":") for lake in argument.split()] for argument in sys.argv[4:])
DRAWS = 200


def figures(path):
    return json.loads(path.read_text())["figures"]


def rows_of(path):
    return csv.DictReader(path.open())


class Recall:
    """The share of the items that users interacted with which had been recommended to them."""

    def __init__(self, interactions, recommended):
        """`interactions`: sets of items by user. `recommended`: a function that returns the set of a user."""
        self.counts = [(user, len(items), len(items & recommended(user))) for user, items in interactions.items()]

    def share(self, weight):
        total = sum(weight[user] * items for user, items, _ in self.counts)
        return sum(weight[user] * found for user, _, found in self.counts) / total


def recommended(path):
    items = {}
    for row in rows_of(path):
        items.setdefault(row["user_id"], set()).add(row["item_id"])
    return lambda user: items.get(user, set())


def sequences(lake, end):
    first = datetime.date.fromisoformat(end) - datetime.timedelta(days=28)
    bought, chance, draws, rows = Outcomes(folder / f"{lake}.bought.csv", str(first), 7), random.Random(7), None, []
    # On the first date: how much each user did in the last seven days, who returned, and the items each interacted with next.
    recent = {row["user_id"]: float(row["p"]) for row in rows_of(folder / f"{lake}.events_7d.0.csv")}
    returned = {row["user_id"] for row in rows_of(folder / f"{lake}.returned.csv")}
    interactions = {}
    for row in rows_of(folder / f"{lake}.interactions.csv"):
        if row["user_id"] in recent:
            interactions.setdefault(row["user_id"], set()).add(row["item_id"])
    popular = {row["item_id"] for row in rows_of(folder / f"{lake}.popular.csv")}
    FIGURES = (Ranking.auc, Ranking.average_precision)

    def churn_ranking(scores):
        return Ranking((score, user, user not in returned) for user, score in scores)

    def ranking_cells(rankings):
        return [spread(*means(rankings, figure, draws, chance)) for figure in FIGURES]

    def recall_cell(recalls):
        return spread(*means(recalls, Recall.share, draws, chance))

    further = []
    for network in networks:
        backbone, head, loss, *weights = network
        paths = sorted((folder / "intents").glob(".".join([lake, backbone, head, "-".join([loss, *weights]), "*", "json"])))
        if not paths:
            continue
        rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(4)]) for path in paths]
        # The same users are drawn for all networks. Times are those of the first seed, measured in one run.
        draws = draws or bootstrap_weights(rankings, chance, DRAWS)
        cards = list(map(figures, paths))
        names = [backbone, head, loss + ", class weights" * bool(weights)]
        rows.append([*names, *ranking_cells(rankings), f"{mean([ranking.log_loss() for ranking in rankings]):.4f}",
                     f"{mean([f['intents_decoded_whole_test'] for f in cards]):.3f}", f"{cards[0]['parameters_intent']:,.0f}",
                     f"{cards[0]['train_seconds_intent']:.0f}", f"{cards[0]['users_scored_per_second']:,.0f}"])
        churn = [churn_ranking((row["user_id"], float(row["p"])) for row in rows_of(path.with_suffix(".churn.csv"))) for path in paths]
        items = [Recall(interactions, recommended(path.with_suffix(".items.csv"))) for path in paths]
        further.append([*names, *ranking_cells(churn), recall_cell(items)])
    for count in ("events_7d", "purchases_90d"):
        ranking = bought.ranking([folder / f"{lake}.{count}.{week}.csv" for week in range(4)])
        rows.append([f"`{count}` alone", "", "", *ranking_cells([ranking])] + [""] * 5)
    quiet = churn_ranking((user, -events) for user, events in recent.items())
    further.append(["fewest `events_7d`", "", "", *ranking_cells([quiet]), ""])
    further.append(["five most popular items", "", "", "", "", recall_cell([Recall(interactions, lambda _: popular)])])
    users = f"{cards[0]['users_train']:,.0f} training histories; {len(draws[0]):,} users scored"
    asked = f"{len(rankings[0].hits):,} weeks of buyers; trainings of each: {len(paths)}"
    pairs = sum(map(len, interactions.values()))
    later = (f"{len(quiet.hits):,} of {len(recent):,} users did nothing in 28 days; {len(interactions):,} users interacted with "
             f"{pairs:,} items in seven")
    return f"**{lake}**: {users}, {asked}.\n\n" + table(
        ["backbone", "head", "loss", "AUC of purchase", "AP of purchase", "log loss", "all six right", "parameters",
         "seconds of training", "users scored a second"], rows) + (
        f"\n\n**{lake}**, scores of {first}: {later}.\n\n") + table(
        ["backbone", "head", "loss", "AUC of churn", "AP of churn", "recall of the next items, five recommended"], further)


def demand(lake, _):
    rows = []
    for network in forecasters:
        cards = list(map(figures, sorted((folder / "demand").glob(f"{lake}.{network}.*.json"))))
        first = cards[0]
        digits = ".4f" if first["pinball_test_zero"] < 1 else ".3f"

        def over_trainings(figure, form):
            """Formats the mean and the range over trainings."""
            values = [f[figure] for f in cards]
            ranged = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
            return f"{mean(values):{form}}{ranged}"

        drawn_items = "{:{d}} ({:{d}} to {:{d}})".format(*(first[f"pinball_test{end}"] for end in ("", "_low", "_high")), d=digits)
        baselines = [f"{first[f'pinball_test_{name}']:{digits}}" for name in ("seasonal_naive", "zero")]
        rows.append([network, over_trainings("pinball_test", digits), drawn_items, *baselines, over_trainings("coverage_test_q90", ".3f"),
                     over_trainings("uncorrected_to_sold_test", ".2f"), over_trainings("forecast_to_sold_test", ".2f"),
                     f"{first['parameters_demand']:,.0f}", f"{min(f['train_seconds_demand'] for f in cards):.0f}",
                     f"{max(f['items_forecast_per_second'] for f in cards):,.0f}"])
    items = sum(value for name, value in first.items() if name.startswith("items_test_"))
    trainings = f"trainings of each: {len(cards)}" + ", with their range" * (len(cards) > 1)
    return f"**{lake}**, {items:,.0f} items; {trainings}.\n\n" + table(
        ["network", "pinball", "first training (95 % of draws of items)", "seasonal naive", "nothing sells", "days at or below q90",
         "means to sales", "corrected", "parameters", "seconds of training", "item forecasts a second"], rows)


for title, tables, asked in [("Behaviour networks", sequences, lakes), ("Demand networks", demand, shops)]:
    print(f"## {title}\n\n" + "\n\n".join(tables(lake, end) for lake, end in asked) + "\n")
