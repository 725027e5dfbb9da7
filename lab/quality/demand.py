"""Demand of days: mean pinball loss over seven quantiles of ours and of the rivals, on the same items, origins and days."""

import hashlib

import lightgbm
import numpy
import pandas
from scipy.stats import norm
from statsforecast import StatsForecast
from statsforecast.models import AutoETS

from intervals import of_mean_difference
from job import later

LEVELS = [0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95]
COLUMNS = ["q05", "q10", "q25", "q50", "q75", "q90", "q95"]

# Items that are judged: those whose ids hash lowest, since AutoETS takes half a second for each.
ITEMS = 600

# Rows of LightGBM's training; more took longer and gained nothing on validation.
ROWS_MAX = 300_000


def pinball(units, quantiles):
    """Mean over the levels, one number for each row."""
    error = units[:, None] - quantiles
    return numpy.maximum(numpy.array(LEVELS) * error, (numpy.array(LEVELS) - 1) * error).mean(axis=1)


def origins_of(task):
    return [later(task.date, 7 * step) for step in range(task.test_dates)]


def series_of(job, end):
    """Units by item (rows) and day (columns), null before an item is first seen and where it was not in stock."""
    query = "SELECT item_id, CAST(day AS VARCHAR) AS day, units, in_stock FROM item_days ORDER BY item_id, day"
    # The rivals learn from all days, not from the 112 that our network reads.
    days = job.sql(end, query, "demand.history_days=1000")
    days.loc[~days.in_stock.astype(str).str.lower().eq("true"), "units"] = numpy.nan
    return days.pivot(index="item_id", columns="day", values="units").sort_index(axis=1)


def inputs(series, origin, steps):
    """Features of each item's days after an origin, as an engineer writes them: lags, rolling means, weekday."""
    place = list(series.columns).index(origin)
    past = series.to_numpy()[:, :place]
    window = {days: numpy.nanmean(past[:, -days:], axis=1) if place else numpy.nan for days in (7, 14, 28, 56, 112)}
    spread = numpy.nanstd(past[:, -56:], axis=1)
    zeros = numpy.nanmean(past[:, -56:] == 0, axis=1)
    seen = (~numpy.isnan(past)).sum(axis=1)
    lag = {days: past[:, -days] if place >= days else numpy.full(len(past), numpy.nan) for days in (1, 7, 14, 28)}
    tables = []
    weekday = pandas.Timestamp(origin).weekday()
    for step in range(steps):
        same = past[
            :, [place - weeks * 7 + step % 7 for weeks in range(1, 9) if 0 <= place - weeks * 7 + step % 7 < place]
        ]
        tables.append(
            pandas.DataFrame(
                {
                    **{f"mean_{days}": values for days, values in window.items()},
                    **{f"lag_{days}": values for days, values in lag.items()},
                    "spread": spread,
                    "zeros": zeros,
                    "seen": seen,
                    "same_weekday": numpy.nanmean(same, axis=1) if same.size else numpy.nan,
                    "weekday": (weekday + step) % 7,
                    "step": step,
                    "item": numpy.arange(len(past)),
                }
            )
        )
    return pandas.concat(tables, ignore_index=True)


def actual(series, origin, steps):
    place = list(series.columns).index(origin)
    return series.to_numpy()[:, place : place + steps].T.reshape(-1)


def light_gbm(series, task, origins):
    """One model per quantile over all items, as pinball loss; settings chosen on the newest origin with known outcomes."""
    columns = list(series.columns)
    place = columns.index(task.date)
    past = [columns[at] for at in range(place - task.horizon_days, 60, -9)][:16]
    tables = []
    for origin in past:
        rows = inputs(series, origin, task.horizon_days)
        rows["units"], rows["origin"] = actual(series, origin, task.horizon_days), origin
        tables.append(rows[rows.units.notna() & (rows.seen > 0)])
    rows = pandas.concat(tables, ignore_index=True)
    rng = numpy.random.default_rng(5)
    rows = rows.iloc[rng.permutation(len(rows))[:ROWS_MAX]]
    names = [name for name in rows if name not in ("units", "origin", "item")]
    # Outcomes of the held-out origin are in no other's.
    fit, held = rows[rows.origin <= later(past[0], -task.horizon_days)], rows[rows.origin == past[0]]

    def trained(of, level, settings, rounds, valid=None):
        data = lightgbm.Dataset(of[names], of.units, free_raw_data=False)
        base = {
            "objective": "quantile",
            "alpha": level,
            "verbosity": -1,
            "num_threads": 2,
            "seed": 5,
            "learning_rate": 0.1,
        }
        extra = (
            {}
            if valid is None
            else {
                "valid_sets": [lightgbm.Dataset(valid[names], valid.units, reference=data)],
                "callbacks": [lightgbm.early_stopping(20, verbose=False)],
            }
        )
        return lightgbm.train({**base, **settings}, data, rounds, **extra)

    grid = [{"num_leaves": leaves, "min_data_in_leaf": least} for leaves in (15, 63) for least in (20, 200)]
    best = min(
        ((trained(fit, 0.9, settings, 300, held), settings) for settings in grid),
        key=lambda pair: pair[0].best_score["valid_0"]["quantile"],
    )[1]
    models = []
    for level in LEVELS:
        rounds = trained(fit, level, best, 300, held).best_iteration
        models.append(trained(rows, level, best, max(rounds, 1)))
    predicted = {}
    for origin in origins:
        of = inputs(series, origin, task.horizon_days)
        predicted[origin] = numpy.sort(
            numpy.maximum(numpy.column_stack([model.predict(of[names]) for model in models]), 0), axis=1
        )
    return predicted, len(grid)


def tsb(series, task, origins):
    """TSB (Teunter, Syntetos, Babai 2011): chance of a sale, smoothed; sizes as they were sold. Smoothing chosen on validation."""
    columns = list(series.columns)

    def of_origin(origin, smoothing):
        past = series.to_numpy()[:, : columns.index(origin)]
        made = numpy.zeros((len(past), len(LEVELS)))
        for at, row in enumerate(past):
            row = row[~numpy.isnan(row)]
            sizes = numpy.sort(row[row > 0][-50:])
            if not len(sizes):
                continue
            chance = (row > 0).mean()
            for sold in row[-365:] > 0:
                chance += smoothing * (sold - chance)
            for place, level in enumerate(LEVELS):
                if level > 1 - chance:
                    made[at, place] = numpy.quantile(sizes, (level - (1 - chance)) / max(chance, 1e-9))
        return numpy.tile(made, (task.horizon_days, 1))

    valid = columns[columns.index(task.date) - task.horizon_days]
    units = actual(series, valid, task.horizon_days)
    known = ~numpy.isnan(units)
    grid = [0.01, 0.03, 0.1, 0.2]
    best = min(grid, key=lambda smoothing: pinball(units[known], of_origin(valid, smoothing)[known]).mean())
    return {origin: of_origin(origin, best) for origin in origins}, len(grid)


def auto_ets(series, task, origins):
    """AutoETS of statsforecast with a week's season (Hyndman, Khandakar 2008); negative quantiles are 0."""
    made = {}
    for origin in origins:
        long = series.loc[:, : later(origin, -1)].reset_index().melt("item_id", var_name="ds", value_name="y")
        long["ds"] = pandas.to_datetime(long.ds)
        long = long.dropna().rename(columns={"item_id": "unique_id"}).sort_values(["unique_id", "ds"])
        long = long[long.groupby("unique_id").y.transform("size") > 14]
        forecast = StatsForecast([AutoETS(season_length=7)], freq="D", n_jobs=2).forecast(
            df=long, h=task.horizon_days, level=[80]
        )
        forecast["step"] = forecast.groupby("unique_id").cumcount()
        spread = (forecast["AutoETS-hi-80"] - forecast["AutoETS"]) / norm.ppf(0.9)
        table = numpy.maximum(
            forecast["AutoETS"].to_numpy()[:, None] + spread.to_numpy()[:, None] * norm.ppf(LEVELS), 0
        )
        places = forecast.step.to_numpy() * len(series) + series.index.get_indexer(forecast.unique_id)
        made[origin] = numpy.zeros((task.horizon_days * len(series), len(LEVELS)))
        made[origin][places] = table
    return made, 1


def ours(job, series, origins):
    made = {}
    for origin in origins:
        query = (
            "SELECT item_id, f['step'] AS step, "
            + ", ".join(f"f['{name}'] AS {name}" for name in ["mean", *COLUMNS])
            + " FROM (SELECT item_id, unnest(forecast_demand(history)) AS f FROM item_history) WHERE f['step'] > 0"
        )
        rows = job.sql(origin, query)
        rows = rows[rows.item_id.isin(series.index) & (rows.step <= job.task.horizon_days)]
        made[origin] = numpy.zeros((job.task.horizon_days * len(series), len(LEVELS)))
        places = (rows.step.to_numpy(int) - 1) * len(series) + series.index.get_indexer(rows.item_id)
        made[origin][places] = rows[COLUMNS].to_numpy()
    return made


def run(job, check_split):
    task = job.task
    seconds = job.train("--set", "model.width=16", "--set", "model.layers=1", "--set", "train.as_of_dates=2")
    origins = origins_of(task)
    everything = series_of(job, later(origins[-1], task.horizon_days))
    known = everything.loc[everything.loc[:, : later(task.date, -1)].notna().any(axis=1)]
    order = sorted(known.index, key=lambda item: hashlib.sha256(item.encode()).hexdigest())
    sample = known.loc[sorted(order[:ITEMS])]
    judged = {origin: ~numpy.isnan(actual(sample, origin, task.horizon_days)) for origin in origins}
    check_split({"test": pandas.DataFrame({"item_id": sample.index, "first": origins[0], "last": origins[-1]})})
    models = {"intentcast": (ours(job, sample, origins), 1)}
    predicted, settings = light_gbm(known, task, origins)
    places = known.index.get_indexer(sample.index)
    places = numpy.concatenate([step * len(known) + places for step in range(task.horizon_days)])
    models["LightGBM quantiles, lags"] = ({origin: rows[places] for origin, rows in predicted.items()}, settings)
    models["TSB"] = tsb(sample, task, origins)
    models["AutoETS"] = auto_ets(sample, task, origins)
    units = numpy.concatenate([actual(sample, origin, task.horizon_days)[judged[origin]] for origin in origins])
    items = numpy.concatenate(
        [numpy.tile(numpy.arange(len(sample)), task.horizon_days)[judged[origin]] for origin in origins]
    )
    figures, mine = {}, None
    for name, (of, settings) in models.items():
        quantiles = numpy.concatenate([of[origin][judged[origin]] for origin in origins])
        losses = pinball(units, quantiles)
        mine = losses if mine is None else mine
        figures[name] = {
            "pinball": float(losses.mean()),
            "settings": settings,
            "at_most": {column: float((units <= quantiles[:, at]).mean()) for at, column in enumerate(COLUMNS)},
        }
        if name != "intentcast":
            figures[name]["pinball_difference"] = of_mean_difference(mine - losses, items)
    return {
        "rows": len(units),
        "items": len(sample),
        "units_mean": float(units.mean()),
        "train_seconds": seconds,
        "metric": "pinball",
        "models": figures,
    }
