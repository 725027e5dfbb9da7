"""What scores of users are worth: AUC, average precision and log loss beside who did it. For the comparisons in this folder;
without any package."""

import bisect
import collections
import csv
import datetime
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

    def weights(self, weight):
        """How often each row counts, where its user was drawn so often."""
        return list(map(weight.__getitem__, self.users)) if weight else [1] * len(self.users)

    def auc(self, weight=None):
        """Of rows that count as often as their user was drawn (`weight`); equal scores count by halves."""
        weights = self.weights(weight)
        below = list(itertools.accumulate(map(operator.mul, weights, self.quiet), initial=0))
        won = sum(weights[at] * (below[begin] + below[end]) / 2 for at, begin, end in self.hits)
        return won / (below[-1] * sum(weights[at] for at, _, _ in self.hits))

    def average_precision(self, weight=None):
        """Of rows that count as often as their user was drawn; of equal scores all count at once."""
        weights = self.weights(weight)
        rows = list(itertools.accumulate(weights, initial=0))
        misses = list(itertools.accumulate(map(operator.mul, weights, self.quiet), initial=0))
        # At or above a score: all rows without those below it.
        precision = lambda begin: 1 - (misses[-1] - misses[begin]) / (rows[-1] - rows[begin])
        hits = [(weights[at], begin) for at, begin, _ in self.hits if weights[at]]
        return sum(count * precision(begin) for count, begin in hits) / sum(count for count, _ in hits)

    def log_loss(self):
        clipped = [min(max(score, 1e-7), 1 - 1e-7) for score in self.scores]
        return -mean([math.log(1 - p if quiet else p) for p, quiet in zip(clipped, self.quiet)])


class Outcomes:
    """Who bought when, of a CSV file of users and days: what scores of a week's probability are held against."""

    def __init__(self, path, first, step_days):
        """`first`: the first date of scores, as text; the others follow at `step_days`."""
        first, self.step_days = datetime.date.fromisoformat(first), step_days
        self.days = collections.defaultdict(set)
        for row in csv.DictReader(path.open()):
            self.days[row["user_id"]].add((datetime.date.fromisoformat(row["day"][:10]) - first).days)

    def ranking(self, paths, horizon_days=7):
        """Of files of users and `p`, one a date, in order."""
        def bought(user, start):
            return any(start <= day < start + horizon_days for day in self.days[user])
        return Ranking((float(row["p"]), row["user_id"], bought(row["user_id"], place * self.step_days))
                       for place, path in enumerate(paths) for row in csv.DictReader(path.open()))


def drawn(rankings, chance, draws):
    """Weights of the users of rankings: everybody once, then `draws` bootstrap samples of the users."""
    users = sorted(set(rankings[0].users))
    return [collections.Counter(users)] + [collections.Counter(chance.choices(users, k=len(users))) for _ in range(draws)]


def mean(values):
    return sum(values) / len(values)


def interval(values):
    """The middle 95 %."""
    values = sorted(values)
    return values[int(0.025 * len(values))], values[int(0.975 * len(values))]


def spread(whole, parts, form=".3f"):
    """A figure and the middle 95 % of its draws, as text."""
    low, high = interval(parts)
    return f"{whole:{form}} ({low:{form}} to {high:{form}})"


def means(rankings, figure, draws, chance):
    """The mean of a figure (a method of Ranking) over trainings: of everybody, and of each further draw of users, where trainings
    are drawn too."""
    whole, *parts = [[figure(of, draw) for of in rankings] for draw in draws]
    return mean(whole), [mean(fewer(part, chance)) for part in parts]


def fewer(values, chance):
    """Of n values n - 1 drawn with replacement: their means vary as means of n would (Rao and Wu 1988)."""
    return chance.choices(values, k=max(len(values) - 1, 1))
