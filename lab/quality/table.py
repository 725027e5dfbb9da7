"""Sessions of shoppers: one row each, `train --task table` against LightGBM and logistic regression on the same columns."""

import glob
import os

import lightgbm
import numpy
import pandas
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from intents import LIGHTGBM
from intervals import auc, log_losses, of_auc_difference, of_mean_difference
from tasks import CODES

SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}


def split_of(job, data):
    [path] = glob.glob(os.path.join(data, job.task.lake.files[0]))
    rows = pandas.read_csv(path, sep=None, engine="python")
    rows[job.task.target] = rows[job.task.target].astype(str).str.lower().isin(["true", "1"]).astype(float)
    order = numpy.random.default_rng(11).permutation(len(rows))
    ends = numpy.cumsum([int(share * len(rows)) for share in list(SHARES.values())[:-1]])
    return {name: rows.iloc[part].reset_index(drop=True) for name, part in zip(SHARES, numpy.split(order, ends))}


def ours(job, sets):
    """Trains on the rows of training and validation, and predicts the others."""
    folder = os.path.join(job.cache, "table")
    os.makedirs(folder, exist_ok=True)
    known = pandas.concat([sets["train"], sets["valid"]], ignore_index=True)
    known.to_parquet(os.path.join(folder, "train.parquet"))
    sets["test"].to_parquet(os.path.join(folder, "test.parquet"))
    return job.train_table(
        os.path.join(folder, "train.parquet"), os.path.join(folder, "test.parquet"), list(sets["test"])
    )


def run(job, check_split, data):
    sets = split_of(job, data)
    target = job.task.target
    check_split({name: rows for name, rows in sets.items()})
    labels = sets["test"][target].to_numpy()
    texts = [name for name in sets["train"] if sets["train"][name].dtype.kind not in "fib" and name != target] + CODES

    def trees_input(rows):
        made = rows.drop(columns=[target]).copy()
        for name in texts:
            made[name] = pandas.Categorical(
                made[name].astype(str), categories=sorted(sets["train"][name].astype(str).unique())
            )
        return made

    def numbers(rows):
        made = pandas.get_dummies(trees_input(rows), columns=texts).astype(float)
        return numpy.sign(made) * numpy.log1p(numpy.abs(made))

    predicted, seconds = ours(job, sets)
    models = {"intentcast": (predicted, 1)}
    both = pandas.concat([sets["train"], sets["valid"]], ignore_index=True)
    strengths = [0.001, 0.01, 0.1, 1.0, 10.0]

    def logistic(rows, strength):
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(
            numbers(rows), rows[target]
        )

    loss = {
        c: log_losses(
            sets["valid"][target], logistic(sets["train"], c).predict_proba(numbers(sets["valid"]))[:, 1]
        ).mean()
        for c in strengths
    }
    models["logistic regression"] = (
        logistic(both, min(loss, key=loss.get)).predict_proba(numbers(sets["test"]))[:, 1],
        len(strengths),
    )
    rng, best = numpy.random.default_rng(7), None
    for _ in range(LIGHTGBM):
        settings = {
            "objective": "binary",
            "verbosity": -1,
            "num_threads": 2,
            "seed": 7,
            "bagging_freq": 1,
            "learning_rate": rng.choice([0.02, 0.05, 0.1]),
            "num_leaves": int(rng.choice([7, 15, 31, 63])),
            "min_data_in_leaf": int(rng.choice([5, 20, 100])),
            "feature_fraction": rng.choice([0.5, 0.8, 1.0]),
            "bagging_fraction": rng.choice([0.7, 1.0]),
            "lambda_l2": rng.choice([0.0, 1.0, 10.0]),
        }
        fit = lightgbm.Dataset(trees_input(sets["train"]), sets["train"][target], free_raw_data=False)
        held = lightgbm.Dataset(trees_input(sets["valid"]), sets["valid"][target], reference=fit)
        model = lightgbm.train(
            settings, fit, 600, valid_sets=[held], callbacks=[lightgbm.early_stopping(30, verbose=False)]
        )
        if best is None or model.best_score["valid_0"]["binary_logloss"] < best[0]:
            best = (model.best_score["valid_0"]["binary_logloss"], settings, model.best_iteration)
    model = lightgbm.train(best[1], lightgbm.Dataset(trees_input(both), both[target]), max(best[2], 1))
    models["LightGBM"] = (model.predict(trees_input(sets["test"])), LIGHTGBM)
    rows = numpy.arange(len(labels))
    figures = {}
    for name, (values, settings) in models.items():
        losses = log_losses(labels, values)
        figures[name] = {
            "log_loss": float(losses.mean()),
            "auc": auc(labels, values),
            "mean": float(values.mean()),
            "settings": settings,
        }
        if name != "intentcast":
            figures[name]["log_loss_difference"] = of_mean_difference(log_losses(labels, predicted) - losses, rows)
            figures[name]["auc_difference"] = of_auc_difference(labels, predicted, values, rows)
    return {
        "rows": len(labels),
        "users": len(labels),
        "positives": float(labels.mean()),
        "train_seconds": seconds,
        "metric": "log_loss",
        "models": figures,
    }
