"""Sessions of shoppers: one row each, `train --task table` against LightGBM and logistic regression on the same columns."""

import glob
import os

import numpy
import pandas
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import rivals
from intervals import log_losses
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
    check_split(sets)
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

    def logistic(rows, strength):
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(
            numbers(rows), rows[target]
        )

    loss = {
        c: log_losses(
            sets["valid"][target], logistic(sets["train"], c).predict_proba(numbers(sets["valid"]))[:, 1]
        ).mean()
        for c in rivals.STRENGTHS
    }
    models["logistic regression"] = (
        logistic(both, min(loss, key=loss.get)).predict_proba(numbers(sets["test"]))[:, 1],
        len(rivals.STRENGTHS),
    )

    def pair(rows):
        return trees_input(rows), rows[target]

    models["LightGBM"] = rivals.light_gbm(
        pair(sets["train"]), pair(sets["valid"]), pair(both), trees_input(sets["test"])
    )
    return rivals.compared(models, labels, numpy.arange(len(labels)), seconds)
