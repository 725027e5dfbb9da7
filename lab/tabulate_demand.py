"""Prints one row per demand pattern of an evaluation over all dates.

usage: tabulate_demand.py SET MODEL FIGURES.json
"""

import json
import sys


def shown(value):
    return "" if value is None else f"{value:.3f}"


def main(of_set, model, path):
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        if row.get("run_date") != "all" or row["demand_pattern"] in ("new", "dormant"):
            continue
        cells = [
            of_set,
            model,
            f"{row['items']} {row['demand_pattern']}",
            f"{row['pinball']:.4f} ({row['pinball_low']:.4f} to {row['pinball_high']:.4f})",
            f"{row['pinball_seasonal_naive']:.4f}",
            shown(row.get("bias")),
            shown(row.get("covered_q90")),
            shown(row.get("lead_time_covered_q90")),
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
