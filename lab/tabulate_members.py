"""Prints one row of figures per intent of a model: tabulate_members.py LABEL OUTPUT. compare_members.sh calls it."""

import json
import pathlib
import sys

label, output = sys.argv[1], pathlib.Path(sys.argv[2])
champion = (output / "models" / "champion").read_text().strip()
card = json.loads((output / "models" / champion / "bundle.json").read_text())
figures = card["figures"]


def number(key):
    value = figures.get(key)
    return "" if value is None else f"{value:.4f}"


for intent in ("view", "search", "favorite", "cart", "purchase", "review", "churn"):
    if f"auc_test_{intent}" not in figures:
        continue
    blend = card["blend"].get(intent)
    weights = "" if blend is None else ", ".join(f"{weight:.2f}" for weight in blend["network_weights"])
    auc = [number(f"auc_test_{intent}{member}") for member in ("_network", "_trees", "")]
    interval = [number(f"auc_test_{intent}{bound}") for bound in ("_low", "_high")]
    if all(interval):
        auc[2] += f" ({interval[0]} to {interval[1]})"
    losses = [number(f"log_loss_test_{intent}{member}") for member in ("_network", "_trees", "", "_base_rate")]
    users = int(figures["users_test"])
    print(f"| {label} | {intent} | {users} | {', '.join(auc)} | {', '.join(losses)} | {weights} |")
