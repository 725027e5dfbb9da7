"""Measures how often demand intervals cover the outcome, by how items sell. The intervals of the shares account for all items
sharing a week. The arithmetic follows src/metrics/clustered.rs and src/model/demand/history.rs. Uses only the standard library."""

import collections
import math

# With fewer items than this, a share says too little. The limits are those of src/training/demand/calibration.rs.
ITEMS_MIN, WEEKS_MIN, Z = 20, 4, 1.959964


def student_quantile(freedom):
    """Returns the 97.5 % quantile of Student's t, as src/metrics/clustered.rs computes it."""
    z = Z
    return (z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3))


def share(cells):
    """Returns the share of hits and its 95 % interval. `cells` maps (item, week) to [days, hits]."""
    days = sum(n for n, _ in cells.values())
    value = sum(hits for _, hits in cells.values()) / days
    items, weeks, cell_squares = collections.Counter(), collections.Counter(), 0.0
    for (item, week), (n, hits) in cells.items():
        error = hits - value * n
        items[item] += error
        weeks[week] += error
        cell_squares += error * error

    def variance(errors):
        return sum(e * e for e in errors.values()) * len(errors) / max(len(errors) - 1, 1)

    item_variance = variance(items)
    week_variance = max(variance(weeks) - cell_squares, 0.0) if len(weeks) >= WEEKS_MIN else 0.0
    total = item_variance + week_variance

    def freedom_part(v, groups):
        return (v / total) ** 2 / max(groups - 1, 1)

    freedom = math.inf
    if total > 0:
        freedom = 1 / (freedom_part(item_variance, len(items)) + freedom_part(week_variance, len(weeks)))
    half = student_quantile(freedom) * math.sqrt(total) / days
    return value, max(value - half, 0.0), min(value + half, 1.0)


def speed(row, history_days_min):
    """Returns the class of an item, as src/model/demand/history.rs does."""
    days, sales, units, squares = (float(row[c]) for c in ("days", "sales", "units", "squares"))
    if int(row["seen"]) < history_days_min:
        return "new"
    mean = units / sales if sales else 0.0
    if not sales:
        return "dormant"
    variation = (squares / sales - mean * mean) / (mean * mean)
    return "fast" if days < 1.32 * sales else "slow" if variation < 0.49 else "lumpy"


# Name, level, and the test of a hit by units, q10 and q90.
FIGURES = [("at or below q90", 0.9, lambda u, low, high: u <= high), ("below q90", 0.9, lambda u, low, high: u < high),
           ("q10 to q90, both included", 0.8, lambda u, low, high: low <= u <= high),
           ("both left out", 0.8, lambda u, low, high: low < u < high)]

# Further figures, reported without intervals: the level, and the columns of the lower and upper bound.
FURTHER = {"at or below q50": (0.5, None, "q50"), "q25 to q75": (0.5, "q25", "q75"), "q05 to q95": (0.9, "q05", "q95")}


def within(level, with_ties, without):
    """Says if the level is between the share without ties and the share with them, within sampling error."""
    return without[1] <= level <= with_ties[2]


def further_hits(units, row):
    """Returns, by the names of FURTHER, if `units` are within the row's bounds with ties and without."""
    def bound(column, missing):
        return float(row[column]) if column else missing

    bounds = {name: (bound(low, -math.inf), bound(high, math.inf)) for name, (_, low, high) in FURTHER.items()}
    return {name: (low <= units <= high, low < units < high) for name, (low, high) in bounds.items()}


def further_cells(cells):
    """Returns, for each name of FURTHER, a table cell: the shares without and with ties, and the verdict."""
    texts = []
    for name, (level, *_) in FURTHER.items():
        with_ties, without = map(share, cells[name])
        verdict = "yes" if within(level, with_ties, without) else "no"
        if item_count(cells[name][0]) < ITEMS_MIN:
            verdict = "too few"
        texts.append(f"{without[0]:.3f} to {with_ties[0]:.3f}: {verdict}")
    return texts


def item_count(cells):
    return len({item for item, _ in cells})


def figure_cells(cells):
    """Returns the table cells of one row: items, forecasts, weeks, the shares of FIGURES and the verdict. `cells` has one map
    of (item, week) to [days, hits] for each figure."""
    shares = [share(figure) for figure in cells]
    holds = all(within(FIGURES[at][1], shares[at], shares[at + 1]) for at in (0, 2))
    items, weeks = item_count(cells[0]), len({w for _, w in cells[0]})
    verdict = "too few" if items < ITEMS_MIN else "yes" if holds else "no"
    return [str(items), str(sum(n for n, _ in cells[0].values())), str(weeks),
            *("{:.3f} ({:.3f} to {:.3f})".format(*values) for values in shares), verdict]
