"""Intents: log loss and AUC of ours and of the rivals, on the same users and dates."""

import re

import numpy
import pandas
from scipy.optimize import minimize
from scipy.special import gammaln
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import rivals
from intervals import auc, calibration_error, log_losses
from job import later

FEATURES = "SELECT * EXCEPT (recent, last_queries, last_at) FROM user_features ORDER BY user_id"
EVENT = {"purchase": "event_type = 'purchase' AND coalesce(quantity, 1) > 0", "cart": "event_type = 'cart'"}

# Counts and recency alone, as an engineer starts.
SIMPLE = re.compile(r"^(events|purchases|carts|favorites|active_days)_|recency|^age_days$")


def dates_of(job):
    """Past dates, newest first, with known outcomes at the task's date, as many as intentcast takes by default; then the test dates."""
    task = job.task
    first = job.sql(task.date, "SELECT CAST(min(local_day(ts)) AS VARCHAR) AS day FROM events").day[0]
    past = [later(task.date, -task.horizon_days - task.step_days * step) for step in range(12)]
    past = [day for day in past if day >= later(first, 1)]
    return past, [later(task.date, task.horizon_days * step) for step in range(task.test_dates)]


def rows_of(job, day, outcomes):
    """The features of the users who are scored on a day, with what they did then."""
    features = job.sql(day, FEATURES)
    end = later(day, job.task.horizon_days)
    did = set(outcomes.user_id[(outcomes.day >= day) & (outcomes.day < end)])
    features.insert(1, "label", features.user_id.isin(did).astype(float))
    features.insert(1, "day", day)
    return features


def split_of(job):
    past, tests = dates_of(job)
    end = later(tests[-1], job.task.horizon_days)
    outcomes = job.sql(
        end,
        f"SELECT DISTINCT user_id, CAST(local_day(ts) AS VARCHAR) AS day FROM events WHERE {EVENT[job.task.target]}",
    )
    sets = {"valid": rows_of(job, past[0], outcomes)}
    sets["train"] = pandas.concat([rows_of(job, day, outcomes) for day in past[1:]], ignore_index=True)
    sets["test"] = pandas.concat([rows_of(job, day, outcomes) for day in tests], ignore_index=True)
    return sets


def matrix(frame, columns=None):
    numbers = frame.drop(columns=["user_id", "day", "label"])
    return numbers[columns] if columns is not None else numbers


def logistic_regression(sets, columns):
    def inputs(frame):
        numbers = matrix(frame, columns).to_numpy(float)
        missing = numpy.isnan(numbers)
        signed = numpy.sign(numbers) * numpy.log1p(numpy.abs(numbers))
        return numpy.hstack([numpy.where(missing, 0, signed), missing])

    def fitted(frame, strength):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        return model.fit(inputs(frame), frame.label)

    loss = {
        c: log_losses(sets["valid"].label, fitted(sets["train"], c).predict_proba(inputs(sets["valid"]))[:, 1]).mean()
        for c in rivals.STRENGTHS
    }
    model = fitted(pandas.concat([sets["train"], sets["valid"]]), min(loss, key=loss.get))
    return model.predict_proba(inputs(sets["test"]))[:, 1], len(rivals.STRENGTHS)


def light_gbm(sets, columns):
    def pair(frame):
        return matrix(frame, columns), frame.label

    both = pandas.concat([sets["train"], sets["valid"]])
    return rivals.light_gbm(pair(sets["train"]), pair(sets["valid"]), pair(both), matrix(sets["test"], columns))


def bg_nbd(job, sets):
    """BG/NBD (Fader, Hardie, Lee 2005): the probability of a purchase day within the horizon; buyers from their days so far, others
    at the rate of the others on the validation date."""
    query = f"SELECT DISTINCT user_id, CAST(local_day(ts) AS VARCHAR) AS day FROM events WHERE {EVENT['purchase']}"

    def summary(day):
        bought = job.sql(day, query)
        days = pandas.to_datetime(bought.day).groupby(bought.user_id).agg(["min", "max", "count"])
        return pandas.DataFrame(
            {
                "x": days["count"] - 1,
                "t_x": (days["max"] - days["min"]).dt.days / 7,
                "T": (pandas.Timestamp(day) - days["min"]).dt.days / 7,
            }
        )

    def minus_log_likelihood(logs, of):
        r, alpha, a, b = numpy.exp(logs)
        x, t_x, T = of.x.to_numpy(float), of.t_x.to_numpy(float), of["T"].to_numpy(float)
        lead = (
            gammaln(r + x)
            - gammaln(r)
            + r * numpy.log(alpha)
            + gammaln(a + b)
            + gammaln(b + x)
            - gammaln(b)
            - gammaln(a + b + x)
        )
        alive = -(r + x) * numpy.log(alpha + T)
        gone = numpy.where(
            x > 0, numpy.log(a) - numpy.log(b + numpy.maximum(x, 1) - 1) - (r + x) * numpy.log(alpha + t_x), -numpy.inf
        )
        return -(lead + numpy.logaddexp(alive, gone)).sum()

    logs = minimize(
        minus_log_likelihood,
        numpy.log([0.3, 4.0, 0.8, 2.5]),
        args=(summary(job.task.date),),
        method="Nelder-Mead",
        options={"maxiter": 2000},
    ).x
    r, alpha, a, b = numpy.exp(logs)
    weeks = job.task.horizon_days / 7
    predicted = []
    others = sets["valid"].label[~sets["valid"].user_id.isin(summary(sets["valid"].day.iloc[0]).index)]
    rate = (others.sum() + 0.5) / (len(others) + 1)
    for day, rows in sets["test"].groupby("day", sort=False):
        of = summary(day)
        gone = numpy.where(
            of.x > 0, a / (b + numpy.maximum(of.x, 1) - 1) * ((alpha + of["T"]) / (alpha + of.t_x)) ** (r + of.x), 0
        )
        of["p"] = (1 - ((alpha + of["T"]) / (alpha + of["T"] + weeks)) ** (r + of.x)) / (1 + gone)
        predicted.append(rows.user_id.map(of.p).fillna(rate))
    return pandas.concat(predicted).reindex(sets["test"].index).to_numpy(), 1


def ours(job, sets):
    predicted = []
    for day, rows in sets["test"].groupby("day", sort=False):
        scores = job.sql(
            day,
            f"SELECT user_id, score_intents(features)['p_{job.task.target}'] AS p FROM model_input ORDER BY user_id",
        )
        predicted.append(rows.user_id.map(scores.set_index("user_id").p))
    return pandas.concat(predicted).reindex(sets["test"].index).to_numpy()


def true_propensity(job, sets):
    """How far above 0.5 the AUC of ours is, as a share of what the simulator's own probabilities reach on the same rows."""
    test = sets["test"]
    truth = [pandas.read_parquet(f"{job.lake}/truth/propensity/dt={day}").assign(day=day) for day in test.day.unique()]
    found = test[["day", "user_id"]].merge(pandas.concat(truth), how="left", on=["day", "user_id"])
    known = found.p_purchase_7d.notna().to_numpy()
    reached = [auc(test.label.to_numpy()[known], of[known]) for of in (ours(job, sets), found.p_purchase_7d.to_numpy())]
    return {
        "rows": int(known.sum()),
        "auc": reached[0],
        "auc_true": reached[1],
        "share": (reached[0] - 0.5) / (reached[1] - 0.5),
    }


def run(job, check_split):
    seconds = job.train()
    sets = split_of(job)
    check_split({name: frame[["day", "user_id", "label"]] for name, frame in sets.items()})
    labels, users = sets["test"].label.to_numpy(), sets["test"].user_id.to_numpy()
    simple = [name for name in matrix(sets["train"]) if SIMPLE.search(name)]
    models = {"intentcast": (ours(job, sets), 1)}
    models["logistic regression"] = logistic_regression(sets, None)
    models["LightGBM, our features"] = light_gbm(sets, None)
    models["LightGBM, recency and counts"] = light_gbm(sets, simple)
    if job.task.target == "purchase":
        models["BG/NBD"] = bg_nbd(job, sets)
    found = rivals.compared(models, labels, users, seconds)
    found["models"]["intentcast"]["calibration_error"] = calibration_error(labels, models["intentcast"][0])
    if job.task.lake.simulate:
        found["true_propensity"] = true_propensity(job, sets)
    return found
