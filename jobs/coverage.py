"""How often intervals of demand cover what came, by how items sell, with errors that know that all items share a week. The
arithmetic is that of src/metrics/clustered.rs and src/model/demand/history.rs. For the comparisons in this folder; without any
package."""

import collections
import math

# Fewer items say too little, as in src/training/calibration.rs.
ITEMS_MIN, WEEKS_MIN, Z = 20, 4, 1.959964


def student(freedom):
    """The 97.5 % quantile, as in src/metrics/clustered.rs."""
    z = Z
    return (z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3))


def share(cells):
    """{(item, week): [days, hits]} → the share and its 95 % interval, as in src/metrics/clustered.rs."""
    days = sum(n for n, _ in cells.values())
    value = sum(hits for _, hits in cells.values()) / days
    items, weeks, of_cells = collections.Counter(), collections.Counter(), 0.0
    for (item, week), (n, hits) in cells.items():
        error = hits - value * n
        items[item] += error
        weeks[week] += error
        of_cells += error * error
    variance = lambda errors: sum(e * e for e in errors.values()) * len(errors) / max(len(errors) - 1, 1)
    of_items = variance(items)
    of_weeks = max(variance(weeks) - of_cells, 0.0) if len(weeks) >= WEEKS_MIN else 0.0
    total = of_items + of_weeks
    part = lambda v, groups: (v / total) ** 2 / max(groups - 1, 1)
    freedom = 1 / (part(of_items, len(items)) + part(of_weeks, len(weeks))) if total > 0 else math.inf
    half = student(freedom) * math.sqrt(total) / days
    return value, max(value - half, 0.0), min(value + half, 1.0)


def speed(row, history_days_min):
    """As ItemHistory::speed."""
    days, sales, units, squares = (float(row[c]) for c in ("days", "sales", "units", "squares"))
    if int(row["seen"]) < history_days_min:
        return "new"
    mean = units / sales if sales else 0.0
    if not sales:
        return "dormant"
    variation = (squares / sales - mean * mean) / (mean * mean)
    return "fast" if days < 1.32 * sales else "slow" if variation < 0.49 else "lumpy"


FIGURES = [("at or below q90", 0.9, lambda u, low, high: u <= high), ("below q90", 0.9, lambda u, low, high: u < high),
           ("q10 to q90, both included", 0.8, lambda u, low, high: low <= u <= high),
           ("both left out", 0.8, lambda u, low, high: low < u < high)]

# What is told in short: its level, and the columns of its lowest and highest amount.
FURTHER = {"at or below q50": (0.5, None, "q50"), "q25 to q75": (0.5, "q25", "q75"), "q05 to q95": (0.9, "q05", "q95")}


def within(level, with_ties, without):
    """Whether the level lies between the share without ties and the one with them, within sampling error."""
    return without[1] <= level <= with_ties[2]


def further_hits(units, row):
    """By the names of FURTHER: whether `units` lie within the columns of a row, with ties and without."""
    of = lambda column, missing: float(row[column]) if column else missing
    ends = {name: (of(low, -math.inf), of(high, math.inf)) for name, (_, low, high) in FURTHER.items()}
    return {name: (low <= units <= high, low < units < high) for name, (low, high) in ends.items()}


def further_of(cells):
    """By the names of FURTHER: cells with ties and without → the shares without and with them, and what is said of them."""
    said = []
    for name, (level, *_) in FURTHER.items():
        with_ties, without = map(share, cells[name])
        verdict = "yes" if within(level, with_ties, without) else "no"
        said.append(f"{without[0]:.3f} to {with_ties[0]:.3f}: {verdict if items_of(cells[name][0]) >= ITEMS_MIN else 'too few'}")
    return said


def items_of(cells):
    return len({item for item, _ in cells})


def row_of(cells):
    """Cells of a figure each ({(item, week): [days, hits]}) → items, forecasts and weeks, the four shares, and what is said of
    them."""
    shares = [share(of) for of in cells]
    holds = all(within(FIGURES[at][1], shares[at], shares[at + 1]) for at in (0, 2))
    items, weeks = items_of(cells[0]), len({w for _, w in cells[0]})
    said = "too few" if items < ITEMS_MIN else "yes" if holds else "no"
    return [str(items), str(sum(n for n, _ in cells[0].values())), str(weeks),
            *("{:.3f} ({:.3f} to {:.3f})".format(*of) for of in shares), said]
