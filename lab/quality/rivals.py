"""LightGBM and the figures of probabilities, as the tasks of users and of tables share them."""

import lightgbm
import numpy

from intervals import auc, log_losses, of_auc_difference, of_mean_difference

# Settings of LightGBM that are tried; with early stopping, so that the number of trees is no setting.
LIGHTGBM = 20

# Strengths of logistic regression's penalty that are tried (scikit-learn's C).
STRENGTHS = [0.001, 0.01, 0.1, 1.0, 10.0]


def light_gbm(train, valid, both, test):
    """Predicts the inputs `test` after choosing settings on validation. Each other set is a pair of inputs and labels; returns the
    predictions and how many settings were tried."""
    rng = numpy.random.default_rng(7)
    best = None
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
        data = lightgbm.Dataset(*train, free_raw_data=False)
        held = lightgbm.Dataset(*valid, reference=data)
        stop = lightgbm.early_stopping(30, verbose=False)
        model = lightgbm.train(settings, data, 600, valid_sets=[held], callbacks=[stop])
        loss = model.best_score["valid_0"]["binary_logloss"]
        if best is None or loss < best[0]:
            best = (loss, settings, model.best_iteration)
    model = lightgbm.train(best[1], lightgbm.Dataset(*both), max(best[2], 1))
    return model.predict(test), LIGHTGBM


def compared(models, labels, clusters, seconds):
    """The result of a task: `models` maps names to predictions and settings tried, intentcast first."""
    mine = models["intentcast"][0]
    figures = {}
    for name, (predicted, settings) in models.items():
        losses = log_losses(labels, predicted)
        figures[name] = {
            "log_loss": float(losses.mean()),
            "auc": auc(labels, predicted),
            "mean": float(predicted.mean()),
            "settings": settings,
        }
        if name != "intentcast":
            figures[name]["log_loss_difference"] = of_mean_difference(log_losses(labels, mine) - losses, clusters)
            figures[name]["auc_difference"] = of_auc_difference(labels, mine, predicted, clusters)
    return {
        "rows": len(labels),
        "users": len(set(clusters)),
        "positives": float(labels.mean()),
        "train_seconds": seconds,
        "metric": "log_loss",
        "models": figures,
    }
