"""Paired bootstrap intervals of differences, clustered by user or item (Efron and Tibshirani 1993, chapter 13)."""

import numpy

RESAMPLES = 1000


def log_losses(labels, probabilities):
    clipped = numpy.clip(probabilities, 1e-7, 1 - 1e-7)
    return -numpy.where(labels > 0, numpy.log(clipped), numpy.log1p(-clipped))


def auc(labels, scores):
    """Area under the ROC curve; ties count half."""
    values, places = numpy.unique(scores, return_inverse=True)
    positives = numpy.bincount(places, weights=labels, minlength=len(values))
    negatives = numpy.bincount(places, weights=1 - labels, minlength=len(values))
    below = numpy.cumsum(negatives) - negatives
    total = positives.sum() * negatives.sum()
    return float((positives * (below + negatives / 2)).sum() / total) if total else float("nan")


def of_mean_difference(differences, clusters, seed=1):
    """The mean difference and its 95 % interval."""
    frame = numpy.unique(clusters, return_inverse=True)[1]
    sums = numpy.bincount(frame, weights=differences)
    counts = numpy.bincount(frame)
    rng = numpy.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(sums), len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = numpy.percentile(means, [2.5, 97.5])
    return float(numpy.mean(differences)), float(low), float(high)


def of_auc_difference(labels, ours, theirs, clusters, seed=1):
    frame = numpy.unique(clusters, return_inverse=True)[1]
    order = numpy.argsort(frame, kind="stable")
    starts = numpy.searchsorted(frame[order], numpy.arange(frame.max() + 2))
    rng = numpy.random.default_rng(seed)
    differences = []
    for _ in range(RESAMPLES // 5):
        drawn = rng.integers(0, len(starts) - 1, len(starts) - 1)
        rows = numpy.concatenate([order[starts[at] : starts[at + 1]] for at in drawn])
        differences.append(auc(labels[rows], ours[rows]) - auc(labels[rows], theirs[rows]))
    low, high = numpy.nanpercentile(differences, [2.5, 97.5])
    return auc(labels, ours) - auc(labels, theirs), float(low), float(high)


def calibration_error(labels, probabilities, bins=10, redraws=200, seed=1):
    """Expected calibration error over bins of equal counts, and the 95 % quantile of it with labels redrawn from the predictions."""
    parts = numpy.array_split(numpy.argsort(probabilities), bins)

    def error(of):
        return sum(abs((of[part] - probabilities[part]).sum()) for part in parts) / len(of)

    rng = numpy.random.default_rng(seed)
    redrawn = [error((rng.random(len(labels)) < probabilities).astype(float)) for _ in range(redraws)]
    return float(error(labels)), float(numpy.percentile(redrawn, 95))
