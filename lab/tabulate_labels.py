"""Prints the table of compare_labels.sh, which calls it."""

import collections
import json
import pathlib
import random
import sys

from markdown import table
from ranking import Outcomes, Ranking, bootstrap_weights, mean, means, spread

folder = pathlib.Path(sys.argv[1])
DRAWS = 200
bought, chance = Outcomes(folder / "bought.csv", sys.argv[2], 8), random.Random(7)
draws = plain = None
trainings = collections.defaultdict(list)
for path in sorted((folder / "figures").glob("*.json")):
    share, backbone, pretraining, unlabelled, _ = path.name.removesuffix(".json").split(",")
    helped = (pretraining, unlabelled) != ("none", "none")
    trainings[float(share), backbone != "transformer", backbone, helped, pretraining, unlabelled].append(path)

head = ["labels", "users with labels", "backbone", "pretraining", "unlabelled", "AUC of purchase (95 %)",
        "more than by labels alone (95 %)", "AP", "more than by labels alone (95 %)", "log loss", "seconds"]
lines = []
for (share, _, backbone, helped, pretraining, unlabelled), paths in sorted(trainings.items()):
    rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(4)]) for path in paths]
    # The same users are drawn for all rows.
    draws = draws or bootstrap_weights(rankings, chance, DRAWS)
    found = [means(rankings, figure, draws, chance) for figure in (Ranking.auc, Ranking.average_precision)]
    gains = ["", ""]
    if not helped:
        plain = (share, backbone), found
    elif plain and plain[0] == (share, backbone):
        gains = [spread(whole - alone, [a - b for a, b in zip(parts, parts_alone)], "+.3f")
                 for (whole, parts), (alone, parts_alone) in zip(found, plain[1])]
    cards = [json.loads(path.read_text())["figures"] for path in paths]
    seconds = min(f["train_seconds_intent"] + f.get("train_seconds_pretraining", 0) for f in cards)
    cells = [f"{share:.0%}", f"{cards[0]['users_train']:,.0f}", backbone, pretraining, unlabelled, spread(*found[0]),
             gains[0], f"{found[1][0]:.3f}", gains[1], f"{mean([ranking.log_loss() for ranking in rankings]):.4f}",
             f"{seconds:.0f}"]
    lines.append(cells)
print(table(head, lines))
