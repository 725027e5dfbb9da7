"""Prints the table of compare_fusion.sh, which calls it."""

import json
import pathlib
import random
import sys

from markdown import table
from ranking import Outcomes, Ranking, bootstrap_weights, means, spread

figures = pathlib.Path(sys.argv[1])
FUSIONS = ("without", "sum", "concat", "gate", "attention", "multilevel")
DRAWS = 200

lines = []
for signal in ("text", "image", "mixed", "sequence"):
    if not (figures / f"{signal}.bought.csv").exists():
        continue
    bought = Outcomes(figures / f"{signal}.bought.csv", sys.argv[2], 7)
    chance, draws, without = random.Random(7), None, None
    for fusion in FUSIONS:
        paths = sorted(figures.glob(f"{signal}.{fusion}.*.json"))
        if not paths:
            continue
        rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(3)]) for path in paths]
        if draws is None:
            # The same users are drawn for all fusions, so that only the fusion differs.
            draws = bootstrap_weights(rankings, chance, DRAWS)
        auc, aucs = means(rankings, Ranking.auc, draws, chance)
        gain = ""
        if fusion == "without":
            without = auc, aucs
        elif without:
            gain = spread(auc - without[0], [a - b for a, b in zip(aucs, without[1])], "+.3f")
        ap, aps = means(rankings, Ranking.average_precision, draws, chance)
        parameters = json.loads(paths[0].read_text())["figures"]["parameters_intent"]
        lines.append([signal, fusion, spread(auc, aucs), gain, spread(ap, aps), str(len(paths)), f"{parameters:,.0f}"])
print(table(["taste shows in", "fusion", "AUC of purchase (95 %)", "more than without (95 %)", "AP (95 %)", "trainings",
             "parameters"], lines))
