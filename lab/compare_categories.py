"""Cuts the folds of compare_categories.sh, which calls it, runs intentcast and prints the table. Intentcast makes the vectors,
trains and predicts, by its SQL, `train --task table` and `train --task image`.

Products are ordered by the sha256 of the repeat and their id, and cut into ten folds. Each fold is the test set of one training.
The column that --time-column names puts its products last, the products of the fold before (the validation set, for early
stopping) before them, and all others first. So every product is predicted once per repeat, by a model that has not seen it."""

import base64
import csv
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
from safetensors.numpy import save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import markdown

job, folder, images, text_encoder, *image_encoders = sys.argv[1:]
folder, images = pathlib.Path(folder).resolve(), pathlib.Path(images)
FOLDS, REPEATS = 10, int(os.environ.get("REPEATS", 3))
# A training on nine of ten folds would have next to no rows of a rarer class.
CLASS_ROWS_MIN = 10
TARGETS = ("masterCategory", "subCategory")
DRAWS = 1000


def run(*words):
    done = subprocess.run([job, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def sql(query, *settings):
    sets = [word for setting in settings for word in ("--set", setting)]
    return run("sql", "--output", str(folder / "out"), "--format", "json", *sets, "-c", query)


def cached(name, make):
    """Returns a file, which `make` writes unless it exists."""
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name("part-" + path.name)
        make(part)
        part.rename(path)
    return path


def table(name, path):
    kind = "PARQUET" if str(path).endswith(".parquet") else "CSV"
    options = "" if kind == "PARQUET" else " OPTIONS ('format.has_header' 'true')"
    return f"CREATE EXTERNAL TABLE {name} STORED AS {kind} LOCATION '{quoted(path)}'{options}; "


def quoted(text):
    return str(text).replace("'", "''")


def write_rows(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def random_encoder():
    """Writes the small network of docs/models/vision.md with the initial weights of a training, and returns its folder."""
    to = folder / "random_cnn"
    if not (to / "config.json").exists():
        to.mkdir(exist_ok=True)
        random, weights, inputs = np.random.default_rng(42), {}, 3
        for block, outputs in enumerate((32, 64, 128)):
            at = f"blocks.{block}."
            weights[at + "conv.weight"] = random.normal(0, (2 / (outputs * 9)) ** 0.5, (outputs, inputs, 3, 3))
            weights |= {at + "norm.weight": np.ones(outputs), at + "norm.bias": np.zeros(outputs)}
            weights |= {at + "norm.running_mean": np.zeros(outputs), at + "norm.running_var": np.ones(outputs)}
            inputs = outputs
        weights["outputs.weight"] = random.uniform(-1, 1, (128, inputs)) * inputs**-0.5
        weights["outputs.bias"] = np.zeros(128)
        save_file({name: value.astype(np.float32) for name, value in weights.items()}, to / "model.safetensors")
        card = {"architecture": "cnn", "preprocess": {"resize": 64, "crop": 64}, "cnn": {"channels": [32, 64, 128], "width": 128}}
        (to / "config.json").write_text(json.dumps(card))
    return to


# Reads the products that have a picture, and makes vectors of titles and pictures.
with open(folder / "styles.csv", newline="", encoding="utf-8") as file:
    reader = csv.DictReader(file)
    styles = {row["id"]: row for row in reader}
lacking = {"id", "productDisplayName", *TARGETS} - set(reader.fieldnames or [])
if lacking:
    sys.exit(f"{folder / 'styles.csv'}: expected the columns id, productDisplayName and {', '.join(TARGETS)}, got no {', '.join(sorted(lacking))}")
ids = sorted((path.stem for path in images.glob("*.jpg") if path.stem in styles), key=int)
if not ids:
    sys.exit(f"{images}: expected pictures ID.jpg of products of styles.csv, found none")
titles = {of: styles[of]["productDisplayName"] for of in ids}
picture = lambda of: base64.b64encode((images / f"{of}.jpg").read_bytes()).decode()
products = cached("products.csv", lambda to: write_rows(to, ["id", "title", "picture"], ([of, titles[of], picture(of)] for of in ids)))
encoders = {}
for place in [pathlib.Path(encoder).resolve() for encoder in image_encoders] or [random_encoder()]:
    # The hash distinguishes encoders whose folders have the same name.
    encoders[f"{place.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:6]}"] = place
text_encoder = pathlib.Path(text_encoder).resolve()
first = cached("text_encoder", lambda to: to.write_text(str(text_encoder))).read_text()
if first != str(text_encoder):
    sys.exit(f"{folder}: expected the text encoder of its first run, {first}, got {text_encoder}: name another FOLDER")


def vectors(name, call, setting):
    # COPY chooses the format by the end of the file name.
    made = f"COPY (SELECT id, {call} AS v FROM products) TO '{{}}' STORED AS PARQUET"
    return cached(f"vectors/{name}.parquet", lambda to: sql(table("products", products) + made.format(to), setting))


parquet = {"title": vectors("title", f"embed_text(title, '{quoted(text_encoder)}')", f"model.text_encoder={text_encoder}")}
for name, place in encoders.items():
    call = f"embed_image(decode(picture, 'base64'), '{quoted(place)}')"
    parquet[name] = vectors(name, call, f"model.image_encoder={place}")


def as_arrays(path):
    printed = sql(table("vectors", path) + "SELECT id, v FROM vectors")
    rows = [json.loads(line) for line in printed.splitlines()]
    lacking = [row["id"] for row in rows if row.get("v") is None]
    if lacking:
        sys.exit(f"{path}: {len(lacking)} of {len(rows)} products have no vector, the first is {lacking[0]}")
    return {str(row["id"]): np.array(row["v"]) for row in rows}


arrays = {name: as_arrays(path) for name, path in parquet.items()}


class Task:
    """One target column: its products, classes and folds."""

    def __init__(self, target):
        counts = {}
        for of in ids:
            counts[styles[of][target]] = counts.get(styles[of][target], 0) + 1
        self.target = target
        self.classes = sorted(c for c, n in counts.items() if n >= CLASS_ROWS_MIN)
        self.left_out = {c: n for c, n in sorted(counts.items()) if n < CLASS_ROWS_MIN}
        self.ids = [of for of in ids if styles[of][target] in self.classes]
        self.truth = np.array([self.classes.index(styles[of][target]) for of in self.ids])

    def places(self, repeat):
        """Returns the place of each product in each fold's order, and each product's fold. The test rows of a training are the
        last tenth, rounded up, so the last of them may be the first row of the next fold. That fold's own training predicts it."""
        n = len(self.ids)
        order = np.argsort([hashlib.sha256(f"{repeat} {of}".encode()).hexdigest() for of in self.ids])
        rank = np.empty(n, int)
        rank[order] = np.arange(n)
        begins = [fold * n // FOLDS for fold in range(FOLDS)]
        places = np.stack([(rank - begin - -(-n // FOLDS)) % n for begin in begins], 1)
        fold_of = np.searchsorted(begins, rank, side="right") - 1
        return places, fold_of

    def first_of(self, tenths):
        return len(self.ids) * tenths // 10

    def table(self, repeat):
        """Writes labels, places and all vectors for the trainings of a repeat, and returns the file."""
        places, _ = self.places(repeat)
        header = ["id", "category", *(f"place_{fold}" for fold in range(FOLDS))]
        name = f"tables/{self.target}-{repeat}"
        rows = cached(f"{name}.csv", lambda to: write_rows(to, header, ([of, styles[of][self.target], *p] for of, p in zip(self.ids, places))))
        known = hashlib.sha256(" ".join(parquet).encode()).hexdigest()[:6]
        names = {name: f"v{i}" for i, name in enumerate(parquet)}
        given = "".join(table(names[name], path) for name, path in parquet.items())
        joins = " ".join(f"JOIN {v} ON {v}.id = r.id" for v in names.values())
        columns = ", ".join(f"{v}.v AS \"{name}\"" for name, v in names.items())
        made = table("r", rows) + given + f"COPY (SELECT r.*, {columns} FROM r {joins} ORDER BY r.id) TO '{{}}' STORED AS PARQUET"
        return cached(f"{name}-{known}.parquet", lambda to: sql(made.format(to)))

    def network(self, repeat, fold, inputs):
        """Returns class probabilities of the products that come last, by `train --task table` and `predict_table`."""
        path, place = self.table(repeat), f"place_{fold}"
        others = ["id", *(f"place_{f}" for f in range(FOLDS) if f != fold), *(name for name in parquet if name not in inputs)]
        words = ["--task", "table", *(word for other in others for word in ("--exclude", other)), "--set", "train.batch_rows=32"]
        version = self.trained(path, place, words)
        struct = "named_struct(" + ", ".join(f"'{name}', \"{name}\"" for name in inputs) + ")"
        columns = ", ".join(f"predict_table({struct}, '{version}', 'category={quoted(of)}') AS p{k}" for k, of in enumerate(self.classes))
        return self.last_tenth(path, place, columns)

    def image_network(self, repeat, fold):
        """Returns class probabilities by pictures alone, by `train --task image` from random weights and `classify_image`."""
        made = table("t", self.table(repeat)) + table("products", products)
        made += "COPY (SELECT t.*, decode(picture, 'base64') AS picture FROM t JOIN products ON products.id = t.id ORDER BY t.id) TO '{}' STORED AS PARQUET"
        path, place = cached(f"tables/{self.target}-{repeat}-pictures.parquet", lambda to: sql(made.format(to))), f"place_{fold}"
        version = self.trained(path, place, ["--task", "image", "--image-column", "picture"])
        columns = ", ".join(f"classify_image(picture, '{version}', '{quoted(of)}') AS p{k}" for k, of in enumerate(self.classes))
        return self.last_tenth(path, place, columns)

    def trained(self, path, place, words):
        words = ["--table", str(path), "--label", "category", "--time-column", place, "--output", str(folder / "out"), *words]
        printed = run("train", *words, "--set", "score.device=cpu")
        return re.search(r"(?:table|image) model (\S+)", printed)[1]

    def last_tenth(self, path, place, columns):
        asked = table("t", path) + f"SELECT id, {columns} FROM t WHERE {place} >= {self.first_of(9)}"
        rows = [json.loads(line) for line in sql(asked, "score.device=cpu").splitlines()]
        return {str(row["id"]): [row[f"p{k}"] for k in range(len(self.classes))] for row in rows}

    def pooled_network(self, called, probabilities):
        """Returns the predicted class of each product, [repeats, products], by `probabilities(repeat, fold)`."""
        chosen = np.empty((REPEATS, len(self.ids)), int)
        for repeat in range(REPEATS):
            _, fold_of = self.places(repeat)
            for fold in range(FOLDS):
                name = f"figures/{self.target}.{called}.{repeat}.{fold}.json"
                print(name, file=sys.stderr) if not (folder / name).exists() else None
                path = cached(name, lambda to: to.write_text(json.dumps(probabilities(repeat, fold))))
                got = json.loads(path.read_text())
                for row in np.flatnonzero(fold_of == fold):
                    chosen[repeat, row] = np.argmax(got[self.ids[row]])
        return chosen

    def pooled(self, model, features):
        """Returns the same by scikit-learn. The validation fold is added to the training rows, because nothing stops early."""
        chosen = np.empty((REPEATS, len(self.ids)), int)
        for repeat in range(REPEATS):
            places, fold_of = self.places(repeat)
            for fold in range(FOLDS):
                train, test = places[:, fold] < self.first_of(9), fold_of == fold
                fitted = model().fit([features[i] for i in np.flatnonzero(train)], self.truth[train])
                chosen[repeat, test] = fitted.predict([features[i] for i in np.flatnonzero(test)])
        return chosen


def f1_macro(truth, chosen, classes):
    """Returns the mean F1 of the classes, with 0 for a class that is neither present nor predicted, as in scikit-learn."""
    count = lambda of: np.bincount(of, minlength=classes)
    return np.mean(2 * count(truth[truth == chosen]) / np.maximum(count(truth) + count(chosen), 1))


def figures(truth, chosen, classes):
    """Returns accuracy and macro F1 as means over the repeats."""
    return (chosen == truth).mean(), np.mean([f1_macro(truth, of_repeat, classes) for of_repeat in chosen])


def interval(values):
    return "{:.3f} to {:.3f}".format(*np.quantile(values, [0.025, 0.975]))


regression = lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
of_words = lambda: make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(max_iter=5000))
lines, notes = [], []
for task in map(Task, TARGETS):
    truth, classes = task.truth, len(task.classes)
    draws = np.random.default_rng(42).integers(0, len(truth), (DRAWS, len(truth)))
    most = np.full((1, len(truth)), np.bincount(truth).argmax())
    ways = [("nothing", f"always {task.classes[most[0, 0]]}", most)]
    ways.append(("title", "TF-IDF, logistic regression", task.pooled(of_words, [titles[of] for of in task.ids])))
    inputs = {"title": ["title"]}
    for name in encoders:
        inputs |= {f"picture ({name.rsplit('-', 1)[0]})": [name], f"both ({name.rsplit('-', 1)[0]})": ["title", name]}
    networks, regressions = {}, {}
    for what, names in inputs.items():
        side_by_side = [np.concatenate([arrays[name][of] for name in names]) for of in task.ids]
        regressions[what] = task.pooled(regression, side_by_side)
        ways.append((what, "logistic regression", regressions[what]))
        networks[what] = task.pooled_network("+".join(names), lambda repeat, fold: task.network(repeat, fold, names))
        ways.append((what, "`train --task table`", networks[what]))
    trained_on_pictures = task.pooled_network("pictures", task.image_network)
    ways.append(("picture", "`train --task image`", trained_on_pictures))
    for what, by, chosen in ways:
        right, f1 = figures(truth, chosen, classes)
        of_draws = np.array([figures(truth[d], chosen[:, d], classes) for d in draws])
        shown = [f"{right:.3f} ({interval(of_draws[:, 0])})", f"{f1:.3f} ({interval(of_draws[:, 1])})"]
        lines.append([task.target, what, by, *shown])

    def ahead(one, other):
        difference = (one == truth).mean(0) - (other == truth).mean(0)
        return f"{difference.mean():+.3f} ({interval(difference[draws].mean(1))}) of accuracy"

    for what, network in networks.items():
        if what != "title":
            notes.append(f"{task.target}, {what} minus title, by `train --task table`: {ahead(network, networks['title'])}.")
        notes.append(f"{task.target}, {what}, logistic regression minus `train --task table`: {ahead(regressions[what], network)}.")
        if not what.startswith("both"):
            notes.append(f"{task.target}, picture by `train --task image` minus {what} by `train --task table`: {ahead(trained_on_pictures, network)}.")
    left_out = ", ".join(f"{c} {n}" for c, n in task.left_out.items())
    notes.append(f"{task.target}: {len(truth)} products of {classes} classes ({', '.join(task.classes)}); left out because rarer than {CLASS_ROWS_MIN}: {left_out or 'none'}.")
notes.insert(0, f"{REPEATS} × {FOLDS} folds; intervals of {DRAWS} draws of the products.")
print(markdown.table(["category", "from", "by", "accuracy (95 %)", "macro F1 (95 %)"], lines))
print("\n" + "\n".join(f"- {note}" for note in notes))
