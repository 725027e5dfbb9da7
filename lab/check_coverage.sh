#!/bin/sh
# Do demand intervals cover the outcome as often as their level says? Uses a simulated lake and a real one. Trains once and
# forecasts on five dates a week apart, as nights do. Then trains every four weeks and forecasts the weeks after each training:
# seven such trainings for new items, which are few in any week, and as many for all other items as the lake has history for.
# Prints the coverage by how items sell, with intervals that account for items sharing a week.
# Skips results that exist in FOLDER, so an interrupted run resumes.
# usage: check_coverage.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]
# USERS, ITEMS and DAYS (3000, 60, 230) size the simulated lake. It is reused if FOLDER/simulated.done exists.
# RETAIL_FOLDER holds the CSV files of the first year of UCI Online Retail II (also .gz or .zst). Without it, only the
# simulated lake is used.
set -eu
usage='usage: check_coverage.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]'
job=${1:?$usage}
folder=${2:?$usage}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
users=${USERS:-3000} items=${ITEMS:-60} days=${DAYS:-230}
horizon=28
quantiles="f['step'] AS step, f['q05'] AS q05, f['q10'] AS q10, f['q25'] AS q25, f['q50'] AS q50, f['q75'] AS q75,
    f['q90'] AS q90, f['q95'] AS q95"
mkdir -p "$folder"
here=$(dirname "$0")
. "$here/common.sh"

forecasts() { # LAKE FIRST_DATE ARRIVAL WEEKS_OF_NEW_ITEMS WEEKS_OF_TRAININGS [--set ...]
    name=$1 first=$2 arrival=$3 weeks_of_new=$4 weeks_of_trainings=$5
    shift 5
    to="$folder/$name.coverage"
    [ -f "$to/done" ] && return
    mkdir -p "$to"
    # No night runs, so there are no earlier intents. The behaviour network is small because its scores are not used.
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
        ask() { # FILE [--set ...]: skips a file that exists
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
    # New items are forecast from a prior, not by the network, so the smallest network is enough.
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
    # Days are compared as text: DataFusion 55.2 panics when it combines a bound on days with the view's date arithmetic.
    query="SELECT item_id, CAST(day AS VARCHAR) AS day, units, in_stock FROM item_days
        WHERE CAST(day AS VARCHAR) >= '$(later "$first" -196)'"
    ask actual.csv "$@" --set demand.history_days=260
    touch "$to/done"
}

new_days() { # FOLDER: prints the number of days for which an item is new
    sed -n 's/.*"history_days_min": *\([0-9]*\).*/\1/p' "$1/bundle.json" | head -n 1
}

[ -f "$folder/simulated.done" ] || {
    rm -rf "$folder/simulated"
    "$job" simulate --to "$folder/simulated" --users "$users" --items "$items" --days "$days" --seed 21 --start 2026-01-01 >&2
    touch "$folder/simulated.done"
}
first=$(later 2026-01-01 $((days - horizon - 28)))
forecasts simulated "$first" column "" "" "$@"
lakes="simulated:$first"
if [ -n "$real" ]; then
    imported "$folder/online-retail-ii" online-retail-ii "$real"/*.csv*
    # December 2009 to December 2010: the forecasts cover the eight weeks before Christmas.
    forecasts online-retail-ii 2010-10-13 none "$(seq -20 4 4)" "$(seq -16 4 4)" "$@"
    lakes="$lakes online-retail-ii:2010-10-13"
fi

python3 -B "$here/tabulate_coverage.py" "$folder" $lakes
