#!/bin/sh
# What do the purchase intents of earlier nights add to demand forecasts? Uses a simulated lake and a real one. Trains a first
# model and runs one night a week with it. Prints three tables with 95 % intervals: the errors of the network, of the intents and
# of the published mix; how often the intervals of each cover the outcome; and how the pinball loss changes, by kind of item,
# when a second model reads those nights as an input.
# Skips results that exist in FOLDER, so an interrupted run resumes.
# usage: compare_intent_inputs.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]
# USERS, ITEMS and DAYS (8000, 800, 230) size the simulated lake. It is reused if FOLDER/simulated.done exists. SEEDS
# ("42 43 44") are the trainings of each row.
# RETAIL_FOLDER holds the CSV files of the first year of UCI Online Retail II (also .gz or .zst). Without it, only the
# simulated lake is used. A set of a few months is too short: its training dates precede any night that a model could have run.
set -eu
usage='usage: compare_intent_inputs.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]'
job=${1:?$usage}
folder=${2:?$usage}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
days=${DAYS:-230} seeds=${SEEDS:-42 43 44}
here=$(dirname "$0")
. "$here/common.sh"
mkdir -p "$folder"

compare() { # LAKE FIRST_TRAINING SECOND_TRAINING ARRIVAL [--set ...]
    name=$1 first=$2 second=$3 arrival=$4
    shift 4
    to="$folder/$name.figures"
    mkdir -p "$to"
    # Keeps every night. By default gc keeps thirty, so the input would reach back only a month.
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
            # The intents of this model are not used, so its behaviour network is small.
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
            # The output of the night's network before reconciliation.
            run sql --date "$night" --format csv "$@" -c "
                SELECT item_id, f['step'] AS step, f['q10'] AS q10, f['q90'] AS q90
                FROM (SELECT item_id, unnest(forecast_demand(history)) AS f FROM item_history)
                WHERE f['step'] >= 1 AND f['step'] <= 7" >"$to/part"
            mv "$to/part" "$to/network.$night.csv"
        }
        night=$(later "$night" 7)
    done
    [ -f "$to/actual.csv" ] || {
        # History back to the first night, which is longer than a network reads.
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
    # December 2009 to December 2010: the forecasts cover the last four weeks.
    compare online-retail-ii 2010-06-02 2010-11-10 none "$@"
    lakes="$lakes online-retail-ii:2010-11-10"
fi

python3 -B "$here/tabulate_intent_inputs.py" "$folder" $lakes
