"""Prints the table of compare_training.sh, which calls it."""

import collections
import pathlib
import random
import sys

from markdown import table
from ranking import Outcomes, Ranking, bootstrap_weights, mean, means, spread

folder = pathlib.Path(sys.argv[1])
# The row of the default settings.
IN_USE = (12, 0.3, 0.5, "none")
DRAWS = 200
bought, chance = Outcomes(folder / "bought.csv", sys.argv[2], 8), random.Random(7)
trainings = collections.defaultdict(list)
for path in sorted((folder / "figures").glob("*.done")):
    dates, decay, share, weights, _ = path.name.removesuffix(".done").split(",")
    scores = [path.with_suffix(f".{week}.csv") for week in range(4)]
    trainings[int(dates), float(decay), float(share), weights].append(bought.ranking(scores))
# The same users are drawn for all rows, so that only the training differs.
draws = bootstrap_weights(trainings[IN_USE], chance, DRAWS)
found = {row: [means(rankings, figure, draws, chance) for figure in (Ranking.auc, Ranking.average_precision)]
         for row, rankings in sorted(trainings.items())}
lines = []
for (dates, decay, share, weights), figures in found.items():
    row = (dates, decay, share, weights)
    cells = [str(dates), f"{decay:g}", f"{share:g}", weights]
    for (whole, parts), (whole_in_use, parts_in_use) in zip(figures, found[IN_USE]):
        cells.append(f"{whole:.3f}")
        cells.append("" if row == IN_USE else spread(whole - whole_in_use, [a - b for a, b in zip(parts, parts_in_use)], "+.3f"))
    lines.append([*cells, f"{mean([ranking.log_loss() for ranking in trainings[row]]):.4f}"])
head = ["dates", "weight decay", "purchase share", "class weights", "AUC of purchase", "more than in use (95 %)", "AP",
        "more than in use (95 %)", "log loss"]
print(table(head, lines))
