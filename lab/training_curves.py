#!/usr/bin/env python3
"""Draws the training and validation losses of runs as SVG, from their metrics.jsonl. Uses only the standard library.

Usage: training_curves.py [--network NAME] [TITLE=]OUTPUT/training/RUN/metrics.jsonl ... > curves.svg

Each run is a row, each network a panel. --network (intents, demand, pretraining) draws one network alone.
"""

import argparse
import json
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT, MARGIN = 420, 260, 48
COLOURS = {"loss_train": "#1f77b4", "loss_valid": "#d62728"}


def panel(title, network, lines, left):
    """Returns the axes, both curves and their names. `left` is in pixels."""
    epochs = [line for line in lines if f"{network}/loss_train" in line]
    curves = {
        name: [(line["epoch"], line[f"{network}/{name}"]) for line in epochs if f"{network}/{name}" in line]
        for name in COLOURS
    }
    points = [point for curve in curves.values() for point in curve]
    first, last = min(e for e, _ in points), max(e for e, _ in points)
    low, high = min(v for _, v in points), max(v for _, v in points)
    x = lambda epoch: left + MARGIN + (epoch - first) / max(last - first, 1) * (WIDTH - 2 * MARGIN)
    y = lambda value: HEIGHT - MARGIN - (value - low) / max(high - low, 1e-12) * (HEIGHT - 2 * MARGIN)
    bottom, right = HEIGHT - MARGIN, left + WIDTH - MARGIN
    drawn = [
        f'<path d="M{left + MARGIN},{MARGIN} V{bottom} H{right}" fill="none" stroke="#888"/>',
        f'<text x="{left + MARGIN}" y="{MARGIN - 16}" font-weight="bold">{escape(title)}</text>',
        f'<text x="{left + MARGIN - 4}" y="{MARGIN + 4}" text-anchor="end">{high:.4g}</text>',
        f'<text x="{left + MARGIN - 4}" y="{bottom}" text-anchor="end">{low:.4g}</text>',
        f'<text x="{left + MARGIN}" y="{bottom + 16}">epoch {first}</text>',
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{last}</text>',
    ]
    for row, (name, curve) in enumerate(curves.items()):
        if curve:
            path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in curve)
            drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.5"/>')
            drawn.append(f'<text x="{right}" y="{MARGIN + 14 * row}" text-anchor="end" fill="{COLOURS[name]}">{name}</text>')
    return drawn


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--network")
parser.add_argument("runs", nargs="+", metavar="[TITLE=]METRICS")
options = parser.parse_args()
rows = []
for run in options.runs:
    title, path = run.split("=", 1) if "=" in run else ("", run)
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    networks = sorted({key.split("/")[0] for line in lines for key in line if key.endswith("/loss_train")}, reverse=True)
    networks = [network for network in networks if options.network in (None, network)]
    if not networks:
        sys.exit(f"{path}: found no epoch of {options.network or 'any network'}")
    rows.append([panel(f"{title}: {network}" if title else network, network, lines, column * WIDTH)
                 for column, network in enumerate(networks)])
print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * max(map(len, rows))}" height="{HEIGHT * len(rows)}" '
      'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>')
for row, panels in enumerate(rows):
    print(f'<g transform="translate(0 {HEIGHT * row})">')
    print("\n".join(line for panel in panels for line in panel))
    print("</g>")
print("</svg>")
