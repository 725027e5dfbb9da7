"""What scores of users are worth: AUC, average precision and log loss beside who did it. For the comparisons in this folder;
without any package."""

import bisect
import itertools
import math
import operator


class Ranking:
    """Rows of (score, user, hit), a user's several times where there are several dates."""

    def __init__(self, rows):
        rows = sorted(rows)
        self.scores = [score for score, _, _ in rows]
        self.users = [user for _, user, _ in rows]
        self.quiet = [not hit for _, _, hit in rows]
        # Of each hit: where it stands, and where the rows of its score begin and end.
        self.hits = [(at, bisect.bisect_left(self.scores, score), bisect.bisect_right(self.scores, score))
                     for at, (score, _, hit) in enumerate(rows) if hit]

    def auc(self, weight=None):
        """Of rows that count as often as their user was drawn (`weight`); equal scores count by halves."""
        weights = list(map(weight.__getitem__, self.users)) if weight else [1] * len(self.users)
        below = list(itertools.accumulate(map(operator.mul, weights, self.quiet), initial=0))
        won = sum(weights[at] * (below[begin] + below[end]) / 2 for at, begin, end in self.hits)
        return won / (below[-1] * sum(weights[at] for at, _, _ in self.hits))

    def average_precision(self):
        """Of equal scores the best comes first."""
        ends = [len(self.users) - begin for _, begin, _ in reversed(self.hits)]
        return sum(bisect.bisect_right(ends, end) / end for end in ends) / len(ends)

    def log_loss(self):
        clipped = [min(max(score, 1e-7), 1 - 1e-7) for score in self.scores]
        return -mean([math.log(1 - p if quiet else p) for p, quiet in zip(clipped, self.quiet)])


def mean(values):
    return sum(values) / len(values)


def interval(values):
    """The middle 95 %."""
    values = sorted(values)
    return values[int(0.025 * len(values))], values[int(0.975 * len(values))]


def fewer(values, chance):
    """Of n values n - 1 drawn with replacement: their means vary as means of n would (Rao and Wu 1988)."""
    return chance.choices(values, k=max(len(values) - 1, 1))
