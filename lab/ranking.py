"""Measures how well users' scores predict what they did: AUC, average precision and log loss, with bootstrap intervals. Uses
only the standard library."""

import bisect
import collections
import csv
import datetime
import itertools
import math
import operator


class Ranking:
    """Rows of (score, user, hit). A user has one row per date."""

    def __init__(self, rows):
        rows = sorted(rows)
        self.scores = [score for score, _, _ in rows]
        self.users = [user for _, user, _ in rows]
        self.misses = [not hit for _, _, hit in rows]
        # For each hit: its place, and where the rows of equal score begin and end.
        self.hits = [(at, bisect.bisect_left(self.scores, score), bisect.bisect_right(self.scores, score))
                     for at, (score, _, hit) in enumerate(rows) if hit]

    def weights(self, weight):
        """Returns the weight of each row: how often its user was drawn, or 1 without a draw."""
        return list(map(weight.__getitem__, self.users)) if weight else [1] * len(self.users)

    def auc(self, weight=None):
        """Returns the weighted AUC. Equal scores count as half a win."""
        weights = self.weights(weight)
        below = list(itertools.accumulate(map(operator.mul, weights, self.misses), initial=0))
        won = sum(weights[at] * (below[begin] + below[end]) / 2 for at, begin, end in self.hits)
        return won / (below[-1] * sum(weights[at] for at, _, _ in self.hits))

    def average_precision(self, weight=None):
        """Returns the weighted average precision. Rows of equal score enter together."""
        weights = self.weights(weight)
        rows = list(itertools.accumulate(weights, initial=0))
        misses = list(itertools.accumulate(map(operator.mul, weights, self.misses), initial=0))

        def precision(begin):
            # The rows at or above a score are all rows without those below it.
            return 1 - (misses[-1] - misses[begin]) / (rows[-1] - rows[begin])

        hits = [(weights[at], begin) for at, begin, _ in self.hits if weights[at]]
        return sum(count * precision(begin) for count, begin in hits) / sum(count for count, _ in hits)

    def log_loss(self):
        clipped = [min(max(score, 1e-7), 1 - 1e-7) for score in self.scores]
        return -mean([math.log(1 - p if miss else p) for p, miss in zip(clipped, self.misses)])


class Outcomes:
    """Who bought when, from a CSV file of users and days. Probabilities of a week are compared with it."""

    def __init__(self, path, first, step_days):
        """`first`: the first date of scores, as text. The other dates follow, `step_days` apart."""
        first, self.step_days = datetime.date.fromisoformat(first), step_days
        self.days = collections.defaultdict(set)
        for row in csv.DictReader(path.open()):
            self.days[row["user_id"]].add((datetime.date.fromisoformat(row["day"][:10]) - first).days)

    def ranking(self, paths, horizon_days=7):
        """Ranks the scores of files with users and `p`, one file per date, in order."""
        def bought(user, start):
            return any(start <= day < start + horizon_days for day in self.days[user])
        return Ranking((float(row["p"]), row["user_id"], bought(row["user_id"], place * self.step_days))
                       for place, path in enumerate(paths) for row in csv.DictReader(path.open()))


def bootstrap_weights(rankings, chance, draws):
    """Returns weights of the users: first every user once, then `draws` bootstrap samples."""
    users = sorted(set(rankings[0].users))
    return [collections.Counter(users)] + [collections.Counter(chance.choices(users, k=len(users))) for _ in range(draws)]


def mean(values):
    return sum(values) / len(values)


def interval(values):
    """Returns the middle 95 %."""
    values = sorted(values)
    return values[int(0.025 * len(values))], values[int(0.975 * len(values))]


def spread(whole, parts, form=".3f"):
    """Formats a figure and the middle 95 % of its draws."""
    low, high = interval(parts)
    return f"{whole:{form}} ({low:{form}} to {high:{form}})"


def means(rankings, figure, draws, chance):
    """Returns the mean of a figure (a method of Ranking) over the trainings, for all users and for each draw of users. The
    trainings are drawn, too."""
    whole, *parts = [[figure(ranking, draw) for ranking in rankings] for draw in draws]
    return mean(whole), [mean(resample(part, chance)) for part in parts]


def resample(values, chance):
    """Draws n - 1 of n values with replacement. Their mean varies as a mean of n values would (Rao and Wu 1988)."""
    return chance.choices(values, k=max(len(values) - 1, 1))
