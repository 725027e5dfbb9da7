#!/bin/sh
# Does the demand network forecast better when it reads the purchase intents of earlier nights? On a simulated lake and on
# a real one: trains a first model, runs a night a week with it, trains again with and without that input, forecasts the
# same days with both, and writes the pinball losses by kind of item, with intervals over items, into docs/models/demand.md.
# What is there already is kept, so an interrupted run goes on.
# usage: compare_intent_inputs.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]
# USERS, ITEMS and DAYS (8000, 120, 230) size the simulated lake, which is kept if FOLDER/simulated.done is there.
# RETAIL_FOLDER: the CSV files of the first year of UCI Online Retail II (also .gz or .zst); without it the simulated lake
# alone. A set of a few months is too short: its training dates lie before any night that a model could have run.
set -eu
job=${1:?usage: compare_intent_inputs.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]}
folder=${2:?usage: compare_intent_inputs.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
users=${USERS:-8000} items=${ITEMS:-120} days=${DAYS:-230}
mkdir -p "$folder"
later() { date -u -d "$1 + $2 days" +%F; }

compare() { # LAKE FIRST_TRAINING SECOND_TRAINING HORIZON_DAYS ARRIVAL [--set ...]
    name=$1 first=$2 second=$3 horizon=$4 arrival=$5
    shift 5
    to="$folder/$name.figures"
    [ -f "$to/actual.csv" ] && return
    mkdir -p "$to"
    # Every night is kept: with gc's thirty the input would end a month back.
    run() {
        "$job" --set "demand.horizon_days=$horizon" --set "lake.arrival=$arrival" --set gc.nights_kept=1000 \
            --set score.device=cpu "$@" 2>>"$folder/log"
    }
    places="--lake $folder/$name --output $folder/$name.out"
    train() { run "$@" train $places --date "$date" | sed -n 's/^model \([^ ]*\) .*/\1/p'; }
    date=$first
    [ -f "$folder/$name.out/models/champion" ] || train "$@" >/dev/null
    night=$first
    while [ "$(date -u -d "$night" +%s)" -lt "$(date -u -d "$second" +%s)" ]; do
        echo "$name: night of $night" >&2
        run "$@" nightly $places --date "$night" >/dev/null
        night=$(later "$night" 7)
    done
    date=$second
    for input in false true; do
        [ -s "$to/$input.version" ] || train "$@" --set "demand.intent_inputs=$input" >"$to/$input.version"
        version=$(cat "$to/$input.version")
        cp "$folder/$name.out/models/$version/bundle.json" "$to/$input.json"
        run "$@" sql $places --date "$second" --format csv -c "
            SELECT item_id, f['step'] AS step, f['q05'] AS q05, f['q10'] AS q10, f['q25'] AS q25, f['q50'] AS q50,
                f['q75'] AS q75, f['q90'] AS q90, f['q95'] AS q95
            FROM (SELECT item_id, unnest(forecast_demand(history, '$version')) AS f FROM item_history)" >"$to/$input.csv"
    done
    run "$@" sql $places --date "$(later "$second" "$horizon")" --format csv -c "
        SELECT item_id, CAST(day AS VARCHAR) AS day, units, in_stock, promoted, days_since_first_seen
        FROM item_days" >"$to/actual.part"
    mv "$to/actual.part" "$to/actual.csv"
}

[ -f "$folder/simulated.done" ] || {
    rm -rf "$folder/simulated"
    "$job" simulate --to "$folder/simulated" --users "$users" --items "$items" --days "$days" --seed 21 --start 2026-01-01
    touch "$folder/simulated.done"
}
compare simulated 2026-04-10 "$(later 2026-01-01 $((days - 29)))" 28 column "$@"
lakes="simulated:$(later 2026-01-01 $((days - 29)))"
if [ -n "$real" ]; then
    [ -f "$folder/online-retail-ii.done" ] || {
        rm -rf "$folder/online-retail-ii"
        "$job" import online-retail-ii "$real"/*.csv* --to "$folder/online-retail-ii" >/dev/null
        touch "$folder/online-retail-ii.done"
    }
    # December 2009 to December 2010: what is forecast are the last four weeks.
    compare online-retail-ii 2010-06-02 2010-11-10 28 none "$@"
    lakes="$lakes online-retail-ii:2010-11-10"
fi

here=$(dirname "$0")
PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models/demand.md" $lakes <<'EOF_PYTHON'
import csv, datetime, json, pathlib, random, sys
from documents import fill

folder, doc = map(pathlib.Path, sys.argv[1:3])
LEVELS = {"q05": 0.05, "q10": 0.10, "q25": 0.25, "q50": 0.50, "q75": 0.75, "q90": 0.90, "q95": 0.95}
ROUNDS = 2000

def rows(path):
    return csv.DictReader(path.open())

def losses(path, actual, start):
    """Sum of pinball losses of each item and day, by (item, day)."""
    found = {}
    for row in rows(path):
        day = str(start + datetime.timedelta(days=int(row["step"]) - 1))
        if int(row["step"]) and (row["item_id"], day) in actual:
            units = actual[row["item_id"], day]["units"]
            found[row["item_id"], day] = sum(
                max(level * (units - float(row[q])), (level - 1) * (units - float(row[q]))) for q, level in LEVELS.items()
            ) / len(LEVELS)
    return found

def interval(by_item):
    """Mean loss without and with the input, and the 95 % interval of the difference over items drawn whole."""
    items = list(by_item.values())
    def means(drawn):
        days = sum(n for n, _, _ in drawn)
        return sum(a for _, a, _ in drawn) / days, sum(b for _, _, b in drawn) / days
    rng = random.Random(1)
    differences = sorted(b - a for a, b in (means(rng.choices(items, k=len(items))) for _ in range(ROUNDS)))
    return *means(items), differences[int(ROUNDS * 0.025)], differences[int(ROUNDS * 0.975) - 1]

def table(lake, date):
    to, start = folder / f"{lake}.figures", datetime.date.fromisoformat(date)
    actual = {}
    for row in rows(to / "actual.csv"):
        if row["day"][:10] >= date and row["in_stock"] == "true":
            row["units"] = float(row["units"])
            actual[row["item_id"], row["day"][:10]] = row
    without, with_input = (losses(to / f"{name}.csv", actual, start) for name in ("false", "true"))
    age = {key: int(row["days_since_first_seen"]) - (datetime.date.fromisoformat(key[1]) - start).days for key, row in actual.items()}
    kinds = {
        "all": lambda key: True,
        "new (seen for fewer than 28 days)": lambda key: age[key] < 28,
        "promoted days": lambda key: actual[key]["promoted"] == "true",
    }
    lines = ["| items | items | days | without | with | difference (95 % interval) |", "|---|---|---|---|---|---|"]
    for kind, wanted in kinds.items():
        by_item = {}
        for key in filter(wanted, without):
            days, a, b = by_item.get(key[0], (0, 0.0, 0.0))
            by_item[key[0]] = days + 1, a + without[key], b + with_input[key]
        if len(by_item) < 2:
            lines.append(f"| {kind} | {len(by_item)} | | | | too few |")
            continue
        a, b, low, high = interval(by_item)
        days = sum(n for n, _, _ in by_item.values())
        lines.append(f"| {kind} | {len(by_item)} | {days} | {a:.4g} | {b:.4g} | {(b - a) / a:+.1%} ({low / a:+.1%} to {high / a:+.1%}) |")
    read = json.loads((to / "true.json").read_text())["demand"].get("intents")
    note = "" if read else " The second model found too few nights to read and has no such input."
    return f"**{lake}**, forecasts of {date}.{note}\n\n" + "\n".join(lines)

lakes = [lake.split(":") for lake in sys.argv[3:]]
text = "\n\n".join(table(lake, date) for lake, date in lakes)
print(text)
fill(doc, "compare_intent_inputs", text)
EOF_PYTHON
