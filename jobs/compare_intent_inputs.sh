#!/bin/sh
# What are the purchase intents of earlier nights worth to demand forecasts? On a simulated lake and on a real one: trains a first
# model and runs a night a week with it; says how far off the network, the intents and what was published between them were, and
# how often the intervals of each covered what came; then trains again with and without those nights as an input of the network,
# forecasts the same days with both, and says how their pinball losses differ by kind of item. The tables, with 95 % intervals, go
# into docs/models/demand.md.
# What is there already is kept, so an interrupted run goes on.
# usage: compare_intent_inputs.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]
# USERS, ITEMS and DAYS (8000, 800, 230) size the simulated lake, which is kept if FOLDER/simulated.done is there; SEEDS
# ("42 43 44") are the trainings of each row.
# RETAIL_FOLDER: the CSV files of the first year of UCI Online Retail II (also .gz or .zst); without it the simulated lake
# alone. A set of a few months is too short: its training dates lie before any night that a model could have run.
set -eu
job=${1:?usage: compare_intent_inputs.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]}
folder=${2:?usage: compare_intent_inputs.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
days=${DAYS:-230} seeds=${SEEDS:-42 43 44}
here=$(dirname "$0")
. "$here/comparing.sh"
mkdir -p "$folder"

compare() { # LAKE FIRST_TRAINING SECOND_TRAINING ARRIVAL [--set ...]
    name=$1 first=$2 second=$3 arrival=$4
    shift 4
    to="$folder/$name.figures"
    mkdir -p "$to"
    # Every night is kept: with gc's thirty the input would end a month back.
    run() { # VERB [OPTION ...]
        verb=$1
        shift
        "$job" "$verb" --lake "$folder/$name" --output "$folder/$name.out" --set "lake.arrival=$arrival" \
            --set gc.nights_kept=1000 --set score.device=cpu --set model.width=32 --set model.layers=1 "$@" </dev/null \
            2>>"$folder/log"
    }
    [ -f "$folder/$name.out/models/champion" ] || trained --date "$first" "$@" >/dev/null
    night=$first
    while [ "$(date -u -d "$night" +%s)" -lt "$(date -u -d "$second" +%s)" ]; do
        echo "$name: night of $night" >&2
        run nightly --date "$night" "$@" >/dev/null
        night=$(later "$night" 7)
    done
    for seed in $seeds; do
        for input in false true; do
            [ -f "$to/$input.$seed.csv" ] && continue
            echo "$name: intents of earlier nights as an input: $input, seed $seed" >&2
            # Nobody reads its intents: a small network.
            version=$(trained --date "$second" --set model.width=16 --set model.heads=2 --set features.last_events=8 \
                --set "train.seed=$seed" --set "demand.intent_inputs=$input" "$@")
            cp "$folder/$name.out/models/$version/bundle.json" "$to/$input.$seed.json"
            run sql --date "$second" --format csv "$@" -c "
                SELECT item_id, f['step'] AS step, f['q05'] AS q05, f['q10'] AS q10, f['q25'] AS q25, f['q50'] AS q50,
                    f['q75'] AS q75, f['q90'] AS q90, f['q95'] AS q95
                FROM (SELECT item_id, unnest(forecast_demand(history, '$version')) AS f FROM item_history)" >"$to/part"
            mv "$to/part" "$to/$input.$seed.csv"
        done
    done
    [ -f "$to/nights.csv" ] || {
        run sql --date "$second" --format csv "$@" -c "
            SELECT CAST(run_date AS VARCHAR) AS night, CAST(target_date AS VARCHAR) AS day, item_id, category, mean, model_mean,
                intent_units, q10, q90
            FROM demand_history" >"$to/part"
        mv "$to/part" "$to/nights.csv"
    }
    night=$first
    while [ "$(date -u -d "$night" +%s)" -lt "$(date -u -d "$second" +%s)" ]; do
        [ -f "$to/kinds.$night.csv" ] || {
            run sql --date "$night" --format csv "$@" -c "$how_items_sell" >"$to/part"
            mv "$to/part" "$to/kinds.$night.csv"
        }
        [ -f "$to/network.$night.csv" ] || {
            # What the night's network said, before anything was reconciled.
            run sql --date "$night" --format csv "$@" -c "
                SELECT item_id, f['step'] AS step, f['q10'] AS q10, f['q90'] AS q90
                FROM (SELECT item_id, unnest(forecast_demand(history)) AS f FROM item_history)
                WHERE f['step'] >= 1 AND f['step'] <= 7" >"$to/part"
            mv "$to/part" "$to/network.$night.csv"
        }
        night=$(later "$night" 7)
    done
    [ -f "$to/actual.csv" ] || {
        # Back to the first night, which is further than a network reads.
        run sql --date "$(later "$second" 28)" --format csv "$@" --set demand.history_days=400 -c "
            SELECT item_id, CAST(day AS VARCHAR) AS day, units, in_stock, promoted, days_since_first_seen
            FROM item_days WHERE day >= DATE '$first'" >"$to/part"
        mv "$to/part" "$to/actual.csv"
    }
}

second=$(later 2026-01-01 $((days - 29)))
ITEMS=${ITEMS:-800} USERS=${USERS:-8000} DAYS=$days simulated "$folder/simulated"
compare simulated 2026-04-10 "$second" column "$@"
lakes="simulated:$second"
if [ -n "$real" ]; then
    imported "$folder/online-retail-ii" online-retail-ii "$real"/*.csv*
    # December 2009 to December 2010: what is forecast are the last four weeks.
    compare online-retail-ii 2010-06-02 2010-11-10 none "$@"
    lakes="$lakes online-retail-ii:2010-11-10"
fi

PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models/demand.md" $lakes <<'EOF_PYTHON'
import collections, csv, datetime, json, pathlib, random, sys
from coverage import FIGURES, row_of, speed
from documents import fill, table
from ranking import fewer, mean, spread

folder, doc = map(pathlib.Path, sys.argv[1:3])
LEVELS = {"q05": 0.05, "q10": 0.10, "q25": 0.25, "q50": 0.50, "q75": 0.75, "q90": 0.90, "q95": 0.95}
DRAWS = 1000
# As sql/score/intent_weight.sql has it: nights over so many days, and how many of them a weight is learnt from at least.
HORIZON_DAYS, NIGHTS_MIN = 7, 4

def rows(path):
    return csv.DictReader(path.open())

def after(day, days):
    return str(datetime.date.fromisoformat(day) + datetime.timedelta(days=days))

def actual_days(to):
    """Days in stock by (item, day)."""
    actual = {}
    for row in rows(to / "actual.csv"):
        if row["in_stock"] == "true":
            actual[row["item_id"], row["day"][:10]] = row | {"units": float(row["units"])}
    return actual

def losses(path, actual, start):
    """Mean pinball loss of each item and day, by (item, day)."""
    found = {}
    for row in rows(path):
        key = row["item_id"], after(start, int(row["step"]) - 1)
        if int(row["step"]) and key in actual:
            units = actual[key]["units"]
            over = [(level, units - float(row[q])) for q, level in LEVELS.items()]
            found[key] = mean([max(level * by, (level - 1) * by) for level, by in over])
    return found

def ablation(lake, start):
    to = folder / f"{lake}.figures"
    actual = actual_days(to)
    seeds = sorted(path.name.split(".")[1] for path in to.glob("true.*.csv"))
    arms = [[losses(to / f"{name}.{seed}.csv", actual, start) for seed in seeds] for name in ("false", "true")]
    date = datetime.date.fromisoformat
    age = lambda key: int(actual[key]["days_since_first_seen"]) - (date(key[1]) - date(start)).days
    kinds = {
        "all": lambda key: True,
        "seen for 14 to 27 days": lambda key: 14 <= age(key) < 28,
        "seen for 28 to 55 days": lambda key: 28 <= age(key) < 56,
        "longer": lambda key: age(key) >= 56,
        "promoted days": lambda key: actual[key]["promoted"] == "true",
    }
    lines = []
    for kind, wanted in kinds.items():
        # Of each item: its days, and the sum of its losses by arm and training.
        by_item = collections.defaultdict(list)
        for key in filter(wanted, arms[0][0]):
            by_item[key[0]].append(key)
        items = [(len(keys), [[sum(of[key] for key in keys) for of in arm] for arm in arms]) for keys in by_item.values()]
        if len(items) < 5:
            lines.append([kind, str(len(items)), "", "", "", "too few"])
            continue
        def means(drawn):
            """By arm and training."""
            days = sum(n for n, _ in drawn)
            return [[sum(sums[arm][k] for _, sums in drawn) / days for k in range(len(seeds))] for arm in range(2)]
        chance = random.Random(1)
        without, with_input = map(mean, means(items))
        differences = []
        for _ in range(DRAWS):
            drawn = means(chance.choices(items, k=len(items)))
            differences.append((mean(fewer(drawn[1], chance)) - mean(fewer(drawn[0], chance))) / without)
        lines.append([kind, str(len(items)), f"{sum(n for n, _ in items):,}", f"{without:.4g}", f"{with_input:.4g}",
                      spread(with_input / without - 1, differences, "+.1%")])
    read = all(json.loads((to / f"true.{seed}.json").read_text())["demand"].get("intents") for seed in seeds)
    note = "" if read else " The second model found too few nights to read and has no such input."
    head = ["items", "items", "days", "without", "with", "difference (95 %)"]
    return f"**{lake}**, forecasts of {start}, {len(seeds)} trainings of each.{note}\n\n" + table(head, lines)

def reconciliation(lake, start):
    """Squared errors of what each night forecast, by level: of the week that intents are about, and of the days after it. Of the
    network alone their root, of all else the share of the network's."""
    to = folder / f"{lake}.figures"
    actual = actual_days(to)
    nights = collections.defaultdict(list)
    for row in rows(to / "nights.csv"):
        nights[row["night"][:10]].append(row)
    levels = {"item": lambda row: row["item_id"], "category": lambda row: row["category"], "total": lambda row: ""}
    ways = ["network alone", "intents alone, by category", "half of each, by category",
            "**as published: learnt weight, by category**", "learnt weight, item by item", "days 8 to 28, network alone",
            "**days 8 to 28, as published**"]
    errors = {way: {level: [] for level in levels} for way in ways}
    weights = []
    for night, forecasts in sorted(nights.items()):
        if after(night, 28) > after(start, 28):
            continue
        network, intents, published = (collections.Counter() for _ in range(3))
        for row in forecasts:
            if row["intent_units"]:
                network[row["category"]] += float(row["model_mean"])
                intents[row["category"]] += float(row["intent_units"])
                published[row["category"]] += float(row["mean"])
        apart = max((of for of in network if network[of]), key=lambda of: abs(intents[of] - network[of]))
        weight = (published[apart] - network[apart]) / (intents[apart] - network[apart])
        # The first nights have too few outcomes of earlier ones to learn a weight from; later it may be learnt to be nothing.
        if sum(after(other, HORIZON_DAYS) <= night for other in nights) < NIGHTS_MIN:
            continue
        weights.append(abs(round(weight, 9)))
        sums = {way: {level: collections.Counter() for level in levels} for way in ways}
        units = {part: {level: collections.Counter() for level in levels} for part in ("week", "after")}
        for row in forecasts:
            outcome = actual.get((row["item_id"], row["day"][:10]))
            if outcome is None:
                continue
            alone, mean_ = float(row["model_mean"]), float(row["mean"])
            if row["intent_units"]:
                of = row["category"]
                wanted = alone * intents[of] / network[of] if network[of] else float(row["intent_units"])
                by_item = alone + weight * (float(row["intent_units"]) - alone)
                said, part = dict(zip(ways, [alone, wanted, (alone + wanted) / 2, mean_, by_item])), "week"
            else:
                said, part = dict(zip(ways[5:], [alone, mean_])), "after"
            for level, member in levels.items():
                units[part][level][member(row)] += outcome["units"]
                for way, value in said.items():
                    sums[way][level][member(row)] += value
        for place, way in enumerate(ways):
            for level in levels:
                truth = units["week" if place < 5 else "after"][level]
                errors[way][level].append(mean([(sums[way][level][of] - truth[of]) ** 2 for of in truth]))
    if len(weights) < 5:
        most = max(weights, default=0)
        found = f"of {len(nights)} nights {len(weights)} had a weight above zero, {most:.2f} at the most"
        return f"**{lake}**: {found}: nothing to compare."
    chance = random.Random(2)
    draws = [chance.choices(range(len(weights)), k=len(weights)) for _ in range(DRAWS)]
    lines = []
    for place, way in enumerate(ways):
        cells = [way]
        for level in levels:
            of, alone = errors[way][level], errors[ways[0 if place < 5 else 5]][level]
            if way in (ways[0], ways[5]):
                cells.append(f"{mean(of) ** 0.5:.3g} units")
            else:
                drawn = [mean([of[k] for k in draw]) / mean([alone[k] for k in draw]) for draw in draws]
                cells.append(f"× {spread(mean(of) / mean(alone), drawn, '.2f')}")
        lines.append(cells)
    head = ["", *levels]
    of_nights = f"{len(weights)} nights a week apart, weights {min(weights):.2f} to {max(weights):.2f}"
    return f"**{lake}**, {of_nights}.\n\n" + table(head, lines)

def published_coverage(lake, start):
    """Of the days of the week that intents are about, how often intervals covered what came: the network's, and those that were
    published."""
    to = folder / f"{lake}.figures"
    actual = actual_days(to)
    minimum = json.loads(next(iter(sorted(to.glob("true.*.json")))).read_text())["demand"]["history_days_min"]
    of_night, of_network = {}, {}
    by = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0]))
    moved = []
    for row in rows(to / "nights.csv"):
        night, day, alone, mean_ = row["night"][:10], row["day"][:10], float(row["model_mean"]), float(row["mean"])
        outcome = actual.get((row["item_id"], day))
        if outcome is None or not row["intent_units"]:
            continue
        if night not in of_night:
            of_night[night] = {r["item_id"]: speed(r, minimum) for r in rows(to / f"kinds.{night}.csv")}
            of_network[night] = {(r["item_id"], int(r["step"])): r for r in rows(to / f"network.{night}.csv")}
        step = (datetime.date.fromisoformat(day) - datetime.date.fromisoformat(night)).days + 1
        said = of_network[night].get((row["item_id"], step))
        # What is known of a night's item only afterwards was not forecast as one that sells somehow.
        kind = of_night[night].get(row["item_id"])
        factor = mean_ / alone if alone else 1.0
        # Nights that had not learnt a weight yet published the network's.
        if kind is None or said is None or abs(factor - 1.0) < 1e-9:
            continue
        moved.append(factor)
        when = datetime.date.fromisoformat(day).toordinal() // 7
        for way, of in (("the network", said), ("as published", row)):
            for name, _, hit in FIGURES:
                cell = by[way, kind, name][row["item_id"], when]
                cell[0] += 1
                cell[1] += hit(outcome["units"], float(of["q10"]), float(of["q90"]))
    lines = []
    for kind in ("fast", "slow", "lumpy", "dormant", "new"):
        for way in ("the network", "as published"):
            cells = [by.get((way, kind, name)) for name, *_ in FIGURES]
            if cells[0]:
                lines.append([kind, way, *row_of(cells)])
    head = ["items that sell", "by", "items", "forecasts", "weeks", *(name for name, *_ in FIGURES), "within"]
    if not moved:
        return f"**{lake}**: no night moved its forecasts."
    moved.sort()
    of_factors = f"the middle four fifths of the factors {moved[len(moved) // 10]:.2f} to {moved[len(moved) * 9 // 10]:.2f}"
    return f"**{lake}**, days of the week after each night, {of_factors}.\n\n" + table(head, lines)

lakes = [lake.split(":") for lake in sys.argv[3:]]
for name, of in (("compare_intent_inputs", ablation), ("compare_reconciliation", reconciliation),
                 ("published_coverage", published_coverage)):
    text = "\n\n".join(of(*lake) for lake in lakes)
    print(text, end="\n\n")
    fill(doc, name, text)
EOF_PYTHON
