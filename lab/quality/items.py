"""Items of the next purchases: NDCG at 20 over the whole catalogue, items bought before included, of ours and of the rivals."""

import collections
import math

import numpy
import pandas

from intervals import of_mean_difference
from job import later

K = 20


def gain(ranked, bought):
    """NDCG at K with one for each item bought (Järvelin, Kekäläinen 2002)."""
    found = sum(1 / math.log2(place + 2) for place, item in enumerate(ranked[:K]) if item in bought)
    best = sum(1 / math.log2(place + 2) for place in range(min(len(bought), K)))
    return found / best


def histories(job, day):
    events = job.sql(
        day,
        "SELECT user_id, item_id, event_type, CAST(local_day(ts) AS VARCHAR) AS day FROM events "
        "WHERE item_id IS NOT NULL ORDER BY user_id, ts, item_id",
    )
    return events[events.day < day]


def ours(job, day):
    found = job.sql(
        day,
        "SELECT user_id, r['rank'] AS rank, r['item_id'] AS item_id FROM (SELECT user_id, "
        f"unnest(recommend(score_intents(features)['taste'], latest_items(features), NULL, {K})) AS r "
        "FROM model_input) ORDER BY user_id, rank",
    )
    return found.groupby("user_id").item_id.agg(list).to_dict()


def popular(events, **_):
    best = list(events[events.event_type == "purchase"].item_id.value_counts().index[:K])
    return lambda user: best


def own(events, day, half_life, bought_weight):
    """A user's own items, by recency-weighted events, then the popular ones."""
    best = popular(events)(None)
    ages = (pandas.Timestamp(day) - pandas.to_datetime(events.day)).dt.days
    weight = 0.5 ** (ages / half_life) * numpy.where(events.event_type == "purchase", bought_weight, 1)
    scores = weight.groupby([events.user_id, events.item_id]).sum().sort_values(ascending=False)
    ranked = collections.defaultdict(list)
    for user, item in scores.index:
        ranked[user].append(item)
    return lambda user: (ranked[user] + [item for item in best if item not in ranked[user]])[:K]


def vsknn(events, day, neighbours, half_life):
    """V-SkNN (Ludewig, Jannach 2018): a user's history is one session; recent events count more; own items may come again."""
    ages = (pandas.Timestamp(day) - pandas.to_datetime(events.day)).dt.days
    weight = (0.5 ** (ages / half_life)).groupby([events.user_id, events.item_id]).sum()
    of_user, of_item = collections.defaultdict(dict), collections.defaultdict(list)
    for (user, item), value in weight.items():
        of_user[user][item] = value
        of_item[item].append(user)
    best = popular(events)(None)

    def ranked(user):
        mine = of_user[user]
        others = collections.Counter()
        for item, value in mine.items():
            for other in of_item[item]:
                others[other] += value / math.sqrt(len(of_user[other]))
        scores = collections.Counter()
        for other, similarity in others.most_common(neighbours):
            for item, value in of_user[other].items():
                scores[item] += similarity * min(value, 1)
        found = [item for item, _ in scores.most_common(K)]
        return (found + [item for item in best if item not in found])[:K]

    return ranked


def run(job, check_split):
    task = job.task
    seconds = job.train()
    valid = later(task.date, -task.horizon_days)
    end = later(task.date, task.horizon_days)
    everything = histories(job, end)
    bought = everything[everything.event_type == "purchase"]

    def outcomes(day):
        within = bought[(bought.day >= day) & (bought.day < later(day, task.horizon_days))]
        known = set(everything.user_id[everything.day < day])
        return {user: set(rows.item_id) for user, rows in within.groupby("user_id") if user in known}

    def mean(ranked, wanted):
        return numpy.mean([gain(ranked(user), items) for user, items in wanted.items()])

    grids = {
        "most bought": (popular, [{}]),
        "own items, recent first": (
            own,
            [{"day": None, "half_life": days, "bought_weight": weight} for days in (3, 7, 14, 30) for weight in (1, 3)],
        ),
        "V-SkNN": (
            vsknn,
            [
                {"day": None, "neighbours": most, "half_life": days}
                for most in (20, 100, 400)
                for days in (3, 7, 14, 30)
            ],
        ),
    }
    wanted, test = outcomes(valid), outcomes(task.date)
    check_split(
        {"test": pandas.DataFrame({"user_id": sorted(test), "items": [len(test[user]) for user in sorted(test)]})}
    )
    before_valid, before = everything[everything.day < valid], everything[everything.day < task.date]
    mine = ours(job, task.date)
    users = sorted(test)
    gains = {"intentcast": (numpy.array([gain(mine.get(user, []), test[user]) for user in users]), 1)}
    for name, (made, grid) in grids.items():

        def at(settings, day):
            return {**settings, "day": day} if settings else {}

        best = max(grid, key=lambda settings: mean(made(before_valid, **at(settings, valid)), wanted))
        ranked = made(before, **at(best, task.date))
        gains[name] = (numpy.array([gain(ranked(user), test[user]) for user in users]), len(grid))
    figures = {}
    for name, (values, settings) in gains.items():
        figures[name] = {"ndcg_20": float(values.mean()), "settings": settings}
        if name != "intentcast":
            figures[name]["ndcg_20_difference"] = of_mean_difference(
                gains["intentcast"][0] - values, numpy.arange(len(users))
            )
    return {"rows": len(users), "users": len(users), "train_seconds": seconds, "metric": "ndcg_20", "models": figures}
