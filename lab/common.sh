# Shared shell functions, sourced by the scripts in this folder. A script that sources this file sets `job` to the path of
# intentcast and `folder` to the folder of its results, and defines `run VERB [OPTION ...]`, which runs intentcast on one of the
# script's lakes.
# Functions skip results that already exist. Functions with local variables run in a subshell, written `name() ( ... )`,
# so that they cannot overwrite a variable of the caller.

# Classifies how an item sells, as src/model/demand/history.rs does. coverage.py reads the result.
# shellcheck disable=SC2034
how_items_sell="SELECT item_id, max(days_since_first_seen) + 1 AS seen,
    sum(CASE WHEN in_stock THEN 1 ELSE 0 END) AS days,
    sum(CASE WHEN in_stock AND units > 0 THEN 1 ELSE 0 END) AS sales,
    sum(CASE WHEN in_stock THEN units ELSE 0 END) AS units,
    sum(CASE WHEN in_stock THEN units * units ELSE 0 END) AS squares
FROM item_days GROUP BY item_id"

later() { # DAY DAYS
    date -u -d "$1 + $2 days" +%F
}

# Simulates the shop that most comparisons use: USERS (4000), ITEMS (48) and DAYS (142).
simulated() { # LAKE
    [ -f "$1.done" ] && return
    rm -rf "${1:?}"
    "$job" simulate --to "$1" --users "${USERS:-4000}" --items "${ITEMS:-48}" --days "${DAYS:-142}" --seed 17 >&2
    touch "$1.done"
}

imported() ( # LAKE SET FILE ...
    lake_folder=$1
    shift
    [ -f "$lake_folder.done" ] && exit
    rm -rf "${lake_folder:?}"
    "$job" import "$@" --to "$lake_folder" >&2
    touch "$lake_folder.done"
)

# Trains a model and prints its version. Fails if no version was printed, so that the champion is never used by mistake.
trained() { # [OPTION ...]
    run train "$@" | sed -n 's/^model \([^ ]*\) .*/\1/p' | grep .
}

# Queries one row per user on several dates from DAY on and writes TO.0.csv, TO.1.csv and so on.
asked_later() ( # TO COLUMNS_AND_SOURCE DAY STEP_DAYS DATES [OPTION ...]
    answers=$1 columns=$2 first=$3 step_days=$4 dates=$5
    shift 5
    for place in $(seq 0 $((dates - 1))); do
        run sql --date "$(later "$first" $((step_days * place)))" --format csv "$@" \
            -c "SELECT user_id, $columns" >"$answers.$place.csv"
    done
)

# Writes each user's purchase probability on several dates.
scored_later() ( # TO VERSION DAY STEP_DAYS DATES [OPTION ...]
    answers=$1 version_asked=$2
    shift 2
    asked_later "$answers" "score_intents(features, '$version_asked')['p_purchase'] AS p FROM model_input" "$@"
)

# Prepares a comparison of purchase intents on one simulated shop: simulates it, writes who bought when, and sets trained_at to a
# date that leaves time for known outcomes of four later dates, 8 days apart.
prepare_shop() {
    simulated "$folder/lake"
    bought_before "$folder/bought.csv" "$(later 2026-01-01 "${DAYS:-142}")"
    trained_at=$(later 2026-01-01 $((${DAYS:-142} - 33)))
}

# Runs intentcast on the shop of prepare_shop with small networks alone, without trees and refit, which the comparisons are not about. The demand network does not matter there, so it is as small
# as possible.
run_on_shop() { # VERB [OPTION ...]
    shop_verb=$1
    shift
    "$job" "$shop_verb" --lake "$folder/lake" --output "$folder/out" --set score.device=cpu --set model.width=32 \
        --set model.layers=1 --set train.batch_rows=64 --set demand.width=4 --set demand.horizon_days=7 \
        --set demand.history_days=28 --set intents.trees=false --set train.refit_epochs=0 "$@" </dev/null 2>>"$folder/log"
}

# Writes who bought on which days before DAY.
bought_before() { # TO DAY
    [ -f "$1" ] && return
    run sql --date "$2" --format csv \
        -c "SELECT DISTINCT user_id, CAST(ts AS DATE) AS day FROM events WHERE event_type = 'purchase'" >"$1.part"
    mv "$1.part" "$1"
}
