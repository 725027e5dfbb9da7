#!/bin/sh
# Do the intervals of demand forecasts cover what comes as often as they say? On a simulated lake and on a real one: trains
# once, forecasts on five dates a week apart as nights would, and writes by how items sell how often what came lay within,
# with intervals that know that all items share a week, into docs/models/demand.md. Besides, trainings four weeks apart forecast the
# weeks after each: seven of new items, of which a few weeks have few and of one season, and as many of all others as the lake has
# history for, as a shop trains anew. What is there already is kept, so an interrupted run goes on.
# usage: check_coverage.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]
# USERS, ITEMS and DAYS (3000, 60, 230) size the simulated lake, which is kept if FOLDER/simulated.done is there.
# RETAIL_FOLDER: the CSV files of the first year of UCI Online Retail II (also .gz or .zst); without it the simulated lake
# alone.
set -eu
job=${1:?usage: check_coverage.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]}
folder=${2:?usage: check_coverage.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
users=${USERS:-3000} items=${ITEMS:-60} days=${DAYS:-230}
horizon=28
quantiles="f['step'] AS step, f['q05'] AS q05, f['q10'] AS q10, f['q25'] AS q25, f['q50'] AS q50, f['q75'] AS q75,
    f['q90'] AS q90, f['q95'] AS q95"
mkdir -p "$folder"
here=$(dirname "$0")
. "$here/comparing.sh"

forecasts() { # LAKE FIRST_DATE ARRIVAL WEEKS_OF_NEW_ITEMS WEEKS_OF_TRAININGS [--set ...]
    name=$1 first=$2 arrival=$3 weeks_of_new=$4 weeks_of_trainings=$5
    shift 5
    to="$folder/$name.coverage"
    [ -f "$to/done" ] && return
    mkdir -p "$to"
    # No night runs, so no intents of earlier ones; a small network of intents, as nobody reads its scores.
    run() {
        "$job" --set "lake.arrival=$arrival" --set score.device=cpu --set demand.intent_inputs=false --set model.width=16 \
            --set model.heads=2 --set features.last_events=8 "$@" 2>>"$folder/log"
    }
    places="--lake $folder/$name --output $folder/$name.out"
    [ -s "$to/version" ] || run "$@" train $places --date "$first" | sed -n 's/^model \([^ ]*\) .*/\1/p' >"$to/version"
    version=$(cat "$to/version")
    cp "$folder/$name.out/models/$version/bundle.json" "$to/bundle.json"
    for week in 0 1 2 3 4; do
        date=$(later "$first" $((7 * week)))
        ask() { # FILE [--set ...]: what is there is kept
            file="$to/$1"
            shift
            [ -f "$file" ] && return
            run "$@" sql $places --date "$date" --format csv -c "$query" >"$file.part"
            mv "$file.part" "$file"
        }
        query=$how_items_sell
        ask "kinds.$date.csv" "$@"
        query="SELECT item_id, $quantiles
            FROM (SELECT item_id, unnest(forecast_demand(history, '$version')) AS f FROM item_history)"
        ask "quantiles.$date.csv" "$@"
    done
    query="SELECT item_id, history['lead_time_days'] AS days FROM item_history"
    ask lead_times.csv "$@"
    # No network forecasts new items: the smallest will do.
    for weeks in $weeks_of_new; do
        date=$(later "$first" $((7 * weeks)))
        small="--set demand.width=4 --set demand.as_of_dates=2 --set train.epochs_max=1 --set train.rows_max=4000"
        small="$small --set train.as_of_dates=2"
        [ -s "$to/version.$date" ] ||
            run "$@" $small train $places --date "$date" | sed -n 's/^model \([^ ]*\) .*/\1/p' >"$to/version.$date"
        query="SELECT item_id, $quantiles FROM (
                SELECT item_id, unnest(forecast_demand(history, '$(cat "$to/version.$date")')) AS f FROM item_history
                WHERE history['days_since_first_seen'] < $(new_days "$to"))"
        ask "new_items.$date.csv" "$@"
    done
    for weeks in $weeks_of_trainings; do
        date=$(later "$first" $((7 * weeks)))
        [ -s "$to/trained.$date" ] ||
            run "$@" train $places --date "$date" | sed -n 's/^model \([^ ]*\) .*/\1/p' >"$to/trained.$date"
        query=$how_items_sell
        ask "kinds.$date.csv" "$@"
        query="SELECT item_id, $quantiles FROM (
                SELECT item_id, unnest(forecast_demand(history, '$(cat "$to/trained.$date")')) AS f FROM item_history)"
        ask "trained_then.$date.csv" "$@"
    done
    date=$(later "$first" $((28 + horizon)))
    # Compared as text: DataFusion 55.2 panics where a bound on days meets the view's arithmetic of dates.
    query="SELECT item_id, CAST(day AS VARCHAR) AS day, units, in_stock FROM item_days
        WHERE CAST(day AS VARCHAR) >= '$(later "$first" -196)'"
    ask actual.csv "$@" --set demand.history_days=260
    touch "$to/done"
}

new_days() { # FOLDER: days for which an item is new
    sed -n 's/.*"history_days_min": *\([0-9]*\).*/\1/p' "$1/bundle.json" | head -n 1
}

[ -f "$folder/simulated.done" ] || {
    rm -rf "$folder/simulated"
    "$job" simulate --to "$folder/simulated" --users "$users" --items "$items" --days "$days" --seed 21 --start 2026-01-01
    touch "$folder/simulated.done"
}
first=$(later 2026-01-01 $((days - horizon - 28)))
forecasts simulated "$first" column "" "" "$@"
lakes="simulated:$first"
if [ -n "$real" ]; then
    imported "$folder/online-retail-ii" online-retail-ii "$real"/*.csv*
    # December 2009 to December 2010: the eight weeks before Christmas are forecast.
    forecasts online-retail-ii 2010-10-13 none "$(seq -20 4 4)" "$(seq -16 4 4)" "$@"
    lakes="$lakes online-retail-ii:2010-10-13"
fi

PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models/demand.md" $lakes <<'EOF_PYTHON'
import collections, csv, datetime, json, pathlib, sys
from coverage import FIGURES, FURTHER, further_hits, further_of, row_of, speed
from documents import fill, table

folder, doc = map(pathlib.Path, sys.argv[1:3])

def rows(path):
    return csv.DictReader(path.open())

def found(lake, first):
    to = folder / f"{lake}.coverage"
    minimum = json.loads((to / "bundle.json").read_text())["demand"]["history_days_min"]
    actual = {(r["item_id"], r["day"][:10]): float(r["units"]) if r["in_stock"] == "true" else None for r in rows(to / "actual.csv")}
    leads = {r["item_id"]: int(r["days"] or 7) for r in rows(to / "lead_times.csv")}
    # By span, how the item sells and figure: days and hits of each item and week.
    by = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0]))

    def add(path, start, kind_of):
        for row in rows(path):
            item, step = row["item_id"], int(row["step"])
            kind = kind_of(item)
            days = range(leads[item]) if step == 0 else [step - 1]
            # What was never seen after a date has no row: nothing was sold.
            units = [actual.get((item, str(start + datetime.timedelta(days=d))), 0.0) for d in days]
            if None in units:
                continue
            when = (start + datetime.timedelta(days=days[0])).toordinal() // 7
            for name, _, hit in FIGURES:
                cell = by[step == 0, kind, name][item, when]
                cell[0] += 1
                cell[1] += hit(sum(units), float(row["q10"]), float(row["q90"]))
            for name, hits in further_hits(sum(units), row).items():
                for ties, hit in enumerate(hits):
                    cell = by[step == 0, kind, name, ties][item, when]
                    cell[0] += 1
                    cell[1] += hit

    for week in range(5):
        start = datetime.date.fromisoformat(first) + datetime.timedelta(days=7 * week)
        kinds = {r["item_id"]: speed(r, minimum) for r in rows(to / f"kinds.{start}.csv")}
        add(to / f"quantiles.{start}.csv", start, kinds.__getitem__)
    trainings = sorted(to.glob("new_items.*.csv"))
    several = f"new, {len(trainings)} trainings"
    for path in trainings:
        add(path, datetime.date.fromisoformat(path.name.split(".")[1]), lambda item: several)
    kinds_of_all = ["fast", "slow", "lumpy", "dormant"]
    trainings = sorted(to.glob("trained_then.*.csv"))
    then = {kind: f"{kind}, {len(trainings)} trainings" for kind in kinds_of_all}
    for path in trainings:
        start = datetime.date.fromisoformat(path.name.split(".")[1])
        kinds = {r["item_id"]: then.get(speed(r, minimum), "new then") for r in rows(to / f"kinds.{start}.csv")}
        add(path, start, kinds.__getitem__)
    lines, further = [], []
    for of_lead in (False, True):
        for kind in (*(name for kind in kinds_of_all for name in (kind, then[kind])), "new", several):
            cells = [by.get((of_lead, kind, name)) for name, *_ in FIGURES]
            if cells[0]:
                names = ["lead times" if of_lead else "days", kind]
                lines.append([*names, *row_of(cells)])
                in_short = {name: [by[of_lead, kind, name, ties] for ties in (0, 1)] for name in FURTHER}
                further.append([*names, *further_of(in_short)])
    head = ["forecasts of", "items that sell", "items", "forecasts", "weeks", *(name for name, *_ in FIGURES), "within"]
    last = datetime.date.fromisoformat(first) + datetime.timedelta(days=28)
    return f"**{lake}**, model of {first}, forecasts of five dates a week apart, the last of {last}.\n\n" + table(head, lines) + (
        "\n\nThe other levels, shares without ties and with them:\n\n") + table([*head[:2], *FURTHER], further)

text = "\n\n".join(found(*lake.split(":")) for lake in sys.argv[3:])
print(text)
fill(doc, "coverage", text)
EOF_PYTHON
