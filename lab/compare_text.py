"""Trains and tests for compare_text.sh, which calls it.

Reviews are sorted by the sha256 of their text. The first 80 % are the training set, the next 10 % the validation set and the
last 10 % the test set. The column `place` passes this order to intentcast as --time-column, so that both sides use the same
rows. The hash of the test rows must match compare_text.split. The repository holds that hash, but no review."""

import csv
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from tokenizers import Tokenizer

job, reviews, minilm, out, *settings = sys.argv[1:]
minilm, out = pathlib.Path(minilm), pathlib.Path(out)
SAMPLE, EPOCHS = int(os.environ.get("SAMPLE", 1500)), os.environ.get("EPOCHS", "1")
LENGTH = int(os.environ.get("MAX_LENGTH", 64))
STRATEGIES = {
    "everything": [],
    "first 3 layers frozen": ["text.frozen_layers=3"],
    "smaller rates below": ["text.layer_decay=0.8"],
    "adapters": ["text.strategy=adapters"],
    "prefix": ["text.strategy=prefix"],
    "LoRA": ["text.strategy=lora"],
    "masked words first": ["text.masked_epochs=1"],
    "only the head": ["text.strategy=frozen"],
}
CHOSEN = os.environ.get("STRATEGIES", ";".join(STRATEGIES)).split(";")
# On a CPU, seconds are processor time, so that other work on the machine hardly changes them.
GPU = any("device=cuda" in setting for setting in settings)
now = time.monotonic if GPU else time.process_time
DEPARTMENTS = ["Tops", "Dresses", "Bottoms", "Intimate", "Jackets", "Trend"]


def read():
    rows = []
    with open(reviews, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["Review Text"].strip():
                place = int(hashlib.sha256(row["Review Text"].encode()).hexdigest()[:13], 16)
                rows.append((place, row))
    rows.sort(key=lambda r: r[0])
    return rows[: SAMPLE or None]


def split(places):
    # Cuts as intentcast cuts a --time-column: at the values at 80 % and 90 % of the rows.
    ordered = np.sort(places)
    valid, test = ordered[len(ordered) * 8 // 10], ordered[len(ordered) * 9 // 10]
    return np.where(places < valid, 0, np.where(places < test, 1, 2))


rows = read()
texts = [row["Review Text"] for _, row in rows]
places = np.array([place for place, _ in rows])
part = split(places)
test_hash = hashlib.sha256("\n".join(str(p) for p in places[part == 2]).encode()).hexdigest()
known = dict(line.split() for line in (pathlib.Path(__file__).parent / "compare_text.split").read_text().splitlines())
name = str(SAMPLE or "all")
print(f"{len(rows)} reviews, {(part == 0).sum()} train, {(part == 2).sum()} test; hash of the test rows {test_hash}", file=sys.stderr)
if known.get(name, test_hash) != test_hash:
    sys.exit(f"compare_text.split: expected {known[name]} for {name} reviews, got {test_hash}: the file or the split differs")

columns = {"recommended": np.array([int(row["Recommended IND"]) for _, row in rows])}
columns["rating"] = np.array([int(row["Rating"]) for _, row in rows])
for department in DEPARTMENTS:
    columns[f"is_{department.lower()}"] = np.array([int(row["Department Name"] == department) for _, row in rows])
columns["positive"] = (columns["rating"] >= 4).astype(int)
TASKS = {"recommended": ["recommended"], "rating": ["rating"], "department": [c for c in columns if c.startswith("is_")] + ["positive"]}
with open(out / "sample.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["review", "place", *columns])
    writer.writerows(zip(texts, places, *columns.values()))


def auc(labels, probabilities, truth):
    """Returns the AUC of a binary label, or the mean over classes or labels that have both values."""
    each = [roc_auc_score(t, p) for p, t in zip(probabilities.T, truth.T) if 0 < t.sum() < len(t)]
    return np.mean(each) if each else np.nan


def figures(labels, probabilities, truth):
    """Returns F1, AUC, accuracy and the 95 % interval of the AUC over rows drawn with replacement, as intentcast computes them:
    macro averages for classes, means for several binary labels."""
    draws = np.random.default_rng(42).integers(0, len(truth), (1000, len(truth)))
    if labels == ["rating"]:
        classes = np.unique(columns["rating"][part == 0])
        chosen, of_class = classes[probabilities.argmax(1)], truth[:, None] == classes
        of_draws = [auc(labels, probabilities[d], of_class[d]) for d in draws]
        f1, right = f1_score(truth, chosen, average="macro", labels=classes, zero_division=0), accuracy_score(truth, chosen)
        return f1, auc(labels, probabilities, of_class), right, *np.nanquantile(of_draws, [0.025, 0.975])
    of_draws = [auc(labels, probabilities[d], truth[d]) for d in draws]
    each = [(f1_score(t, p > 0.5, zero_division=0), accuracy_score(t, p > 0.5)) for p, t in zip(probabilities.T, truth.T)]
    f1, right = np.mean(np.array(each), axis=0)
    return f1, auc(labels, probabilities, truth), right, *np.nanquantile(of_draws, [0.025, 0.975])


def regression(labels, vectors):
    """Fits logistic regressions on vectors with the default settings of scikit-learn, except for the number of steps."""
    clock = now()
    train, test = part == 0, part == 2
    fit = lambda y: LogisticRegression(max_iter=2000).fit(vectors[train], y[train])
    if labels == ["rating"]:
        model = fit(columns["rating"])
        got = figures(labels, model.predict_proba(vectors[test]), columns["rating"][test])
        return got, model.coef_.size + model.intercept_.size, now() - clock
    models = [fit(columns[label]) for label in labels]
    truth = np.stack([columns[label][test] for label in labels], 1)
    got = figures(labels, np.stack([m.predict_proba(vectors[test])[:, 1] for m in models], 1), truth)
    return got, sum(m.coef_.size + m.intercept_.size for m in models), now() - clock


def minilm_vectors():
    """Returns the vectors that sentence-transformers gives: the forward pass of BERT in numpy, mean over tokens, length one."""
    w = {k.removeprefix("bert."): v.astype(np.float32) for k, v in load_file(minilm / "model.safetensors").items() if v.dtype != np.int64}
    config = json.loads((minilm / "config.json").read_text())
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.no_padding()
    norm = lambda x, n: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * w[n + ".weight"] + w[n + ".bias"]
    linear = lambda x, n: x @ w[n + ".weight"].T + w[n + ".bias"]

    def gelu(x):
        # erf by Abramowitz and Stegun 7.1.26, within 1.5e-7.
        z = np.abs(x) / np.sqrt(np.float32(2))
        t = 1 / (1 + 0.3275911 * z)
        erf = 1 - (((((1.061405429 * t - 1.453152027) * t) + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * np.exp(-z * z)
        return 0.5 * x * (1 + np.sign(x) * erf)

    vectors = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        by_head = lambda y: y.reshape(len(ids), heads, -1).transpose(1, 0, 2)
        for i in range(layers):
            at = f"encoder.layer.{i}."
            q, k, v = (by_head(linear(x, f"{at}attention.self.{n}")) for n in ("query", "key", "value"))
            scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
            x = norm(x + linear(mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
            x = norm(x + linear(gelu(linear(x, at + "intermediate.dense")), at + "output.dense"), at + "output.LayerNorm")
        mean = x.mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    return np.stack(vectors)


def cache_file(task, what):
    return out / f"{name}-{LENGTH}-{EPOCHS}-{task}-{re.sub('[^a-z0-9]+', '_', what.lower())}.json"


def trained(task, strategy):
    cached = cache_file(task, strategy)
    if cached.exists():
        return json.loads(cached.read_text())
    print(f"{task}: {strategy}", file=sys.stderr)
    words = [job, "train", "--task", "text", "--table", str(out / "sample.csv"), "--text-column", "review", "--encoder", str(minilm),
             "--time-column", "place", "--output", str(out / "out")]
    words += [word for label in TASKS[task] for word in ("--label", label)]
    sets = [f"text.max_length={LENGTH}", f"text.epochs_max={EPOCHS}", "score.device=cpu", *STRATEGIES[strategy]]
    words += [word for setting in sets for word in ("--set", setting)] + settings
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        printed = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(child.returncode)
    version = re.search(r"text model (\S+)", printed)[1]
    card = json.loads((out / "out/models" / version / "text.json").read_text())["figures"]
    labels = TASKS[task]
    column, kind = "_".join(labels), "auc_macro" if len(labels) > 1 or labels == ["rating"] else "auc"
    of_auc = [card[f"{kind}{end}_test_{column}"] for end in ("", "_low", "_high")]
    if labels == ["rating"]:
        got = card["f1_macro_test_rating"], of_auc[0], card["accuracy_test_rating"], *of_auc[1:]
    else:
        f1, right = ([card[f"{figure}_test_{label}"] for label in labels] for figure in ("f1", "accuracy"))
        got = float(np.mean(f1)), of_auc[0], float(np.mean(right)), *of_auc[1:]
    assert card["rows_test"] == (part == 2).sum(), "the two sides have different rows"
    seconds = card["train_seconds"] + card.get("masked_seconds", 0) if GPU else usage.ru_utime + usage.ru_stime
    row = [got, card["parameters_trained"], seconds, usage.ru_maxrss / 1024]
    cached.write_text(json.dumps(row))
    return row


tfidf = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2)).fit([t for t, p in zip(texts, part) if p == 0]).transform(texts)
cached_vectors = out / f"minilm-{name}-{LENGTH}.npz"
if cached_vectors.exists():
    cached = np.load(cached_vectors)
    vectors, encoding = cached["vectors"], float(cached["seconds"])
else:
    clock = now()
    vectors = minilm_vectors()
    encoding = now() - clock
    np.savez(cached_vectors, vectors=vectors, seconds=encoding)
print(f"| task | strategy | trained weights | {'' if GPU else 'processor '}seconds | memory (MiB) | F1 | AUC (95 %) | accuracy |")
print("|---|---|---|---|---|---|---|---|", flush=True)


def line(task, what, weights, seconds, memory, got):
    f1, ranked, accuracy, low, high = got
    figures = f"{f1:.3f} | {ranked:.3f} ({low:.3f} to {high:.3f}) | {accuracy:.3f}"
    print(f"| {task} | {what} | {weights:,.0f} | {seconds:,.0f} | {memory} | {figures} |", flush=True)


for task in os.environ.get("TASKS", "recommended rating department").split():
    for what, features, extra in [("TF-IDF + logistic regression", tfidf, 0), ("frozen MiniLM + logistic regression", vectors, encoding)]:
        cached = cache_file(task, what)
        if not cached.exists():
            cached.write_text(json.dumps(regression(TASKS[task], features), default=float))
        got, weights, seconds = json.loads(cached.read_text())
        line(task, what, weights, seconds + extra, "", got)
    for strategy in CHOSEN:
        got, weights, seconds, memory = trained(task, strategy)
        line(task, strategy, weights, seconds, f"{memory:,.0f}", got)
