"""Prints AUC and log loss of purchase scores: tabulate_refit.py SET EPOCHS MEMBER SCORES.csv BOUGHT.csv."""

import csv
import math
import sys

label, epochs, member, scores_file, bought_file = sys.argv[1:]
with open(bought_file) as rows:
    bought = {row["user_id"] for row in csv.DictReader(rows)}
with open(scores_file) as rows:
    scored = [(float(row["p"]), row["user_id"] in bought) for row in csv.DictReader(rows)]
scored.sort()
ranks = {}
for place, (score, _) in enumerate(scored, 1):
    low, high = ranks.get(score, (place, place))
    ranks[score] = (low, place)
positives = sum(label for _, label in scored)
negatives = len(scored) - positives
rank_sum = sum(sum(ranks[score]) / 2 for score, label in scored if label)
auc = (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
loss = -sum(math.log(max(1e-12, score if label else 1 - score)) for score, label in scored) / len(scored)
mean = sum(score for score, _ in scored) / len(scored)
print(f"| {label} | {epochs} | {member} | {len(scored)} | {positives} | {auc:.4f} | {loss:.4f} | {mean:.4f} |")
