#!/bin/sh
# How do the networks compare? Trains every backbone, head and loss on a simulated lake and on a real one, scores all users on
# four later dates, a week apart, and prints how well the scores predict who buys within seven days, who leaves, and which items
# users interact with next. Trains every demand network, too, on the simulated lake and on another real one.
# Skips results that exist in FOLDER, so an interrupted run resumes.
# usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV [RETAIL_FOLDER]] [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the simulated lake. SEEDS ("42 43 44") are the trainings of each network. The
# demand networks on the real lake use the first seed only.
# TMALL_CSV is t_alibaba_data.csv of the Alibaba competition of 2014 (also .gz or .zst), for the behaviour networks.
# RETAIL_FOLDER holds the CSV files of the first year of UCI Online Retail II (also .gz or .zst), for the demand networks: so few
# of tmall's items sell that no network beats a forecast of zero. Without these files, only the simulated lake is used.
set -eu
usage='usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV [RETAIL_FOLDER]] [--set section.key=value ...]'
job=${1:?$usage}
folder=${2:?$usage}
shift 2
real= retail=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
case ${1-} in ''|--set) ;; *) retail=$1; shift ;; esac
days=${DAYS:-142} seeds=${SEEDS:-42 43 44}
here=$(dirname "$0")
. "$here/common.sh"
mkdir -p "$folder/intents" "$folder/demand"

simulated "$folder/simulated"
# Each lake with the day after its last day, where the known outcomes end.
lakes="simulated:$(later 2026-01-01 "$days")"
# The lakes for the demand networks.
shops=$lakes
if [ -n "$real" ]; then
    imported "$folder/tmall" tmall "$real"
    lakes="$lakes tmall:2014-07-16"
fi
if [ -n "$retail" ]; then
    imported "$folder/online-retail-ii" online-retail-ii "$retail"/*.csv*
    shops="$shops online-retail-ii:2010-12-10"
fi

run() { # VERB [OPTION ...]
    verb=$1
    shift
    # The real lakes do not record when events arrived.
    [ "$lake" = simulated ] && arrival=column || arrival=none
    "$job" "$verb" --lake "$folder/$lake" --output "$folder/$lake.out" --set "lake.arrival=$arrival" \
        --set model.content_inputs=false --set demand.content_inputs=false --set score.device=cpu "$@" </dev/null 2>>"$folder/log"
}
train() { # CARD [OPTION ...]
    card=$1
    shift
    version=$(trained "$@")
    cp "$folder/$lake.out/models/$version/bundle.json" "$card.part"
}
ask_once() { # ANSWERS COLUMNS_AND_SOURCE [OPTION ...]: queries one row per user on the day of the training
    answers=$1 columns=$2
    shift 2
    [ -f "$answers.csv" ] && return
    asked_later "$answers.part" "$columns" "$asked_from" 1 1 "$@"
    mv "$answers.part.0.csv" "$answers.csv"
}
query_once() { # FILE DAY QUERY
    [ -f "$1" ] && return
    run sql --date "$2" --format csv -c "$3" >"$1.part"
    mv "$1.part" "$1"
}

# backbone head loss [class weights]
networks="transformer sigmoid bce
causal sigmoid bce
lstm sigmoid bce
gru sigmoid bce
rnn sigmoid bce
transformer sigmoid bce balanced
transformer sigmoid focal
transformer sigmoid iou
transformer crf crf"
forecasters="gru lstm rnn tcn"
for lake_and_end in $lakes; do
    lake=${lake_and_end%%:*} end=${lake_and_end##*:}
    asked_from=$(later "$end" -28)
    bought_before "$folder/$lake.bought.csv" "$end"
    for count in events_7d purchases_90d; do
        if [ ! -f "$folder/$lake.$count.3.csv" ]; then
            asked_later "$folder/$lake.$count" "coalesce(features['$count'], 0) AS p FROM model_input" "$asked_from" 7 4
        fi
    done
    query_once "$folder/$lake.returned.csv" "$end" "SELECT DISTINCT user_id FROM events WHERE ts >= TIMESTAMP '$asked_from'"
    query_once "$folder/$lake.interactions.csv" "$(later "$asked_from" 7)" "SELECT DISTINCT user_id, item_id FROM events
        WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND ts >= TIMESTAMP '$asked_from'"
    query_once "$folder/$lake.popular.csv" "$asked_from" "SELECT item_id FROM events
        WHERE item_id IS NOT NULL AND ts >= TIMESTAMP '$(later "$asked_from" -28)'
        GROUP BY item_id ORDER BY count(*) DESC, item_id LIMIT 5"
    for seed in $seeds; do
        echo "$networks" | while read -r backbone head loss weights; do
            to="$folder/intents/$lake.$backbone.$head.$loss${weights:+-$weights}.$seed"
            [ -f "$to.json" ] && continue
            echo "$lake: $backbone, $head, $loss${weights:+, $weights}, seed $seed" >&2
            # The demand network does not matter here, so it is as small as possible.
            train "$to" --date "$asked_from" --set "model.backbone=$backbone" --set "model.head=$head" \
                --set "model.loss=$loss" --set "model.class_weights=${weights:-none}" --set "train.seed=$seed" \
                --set demand.width=4 --set demand.horizon_days=7 --set demand.history_days=28 \
                --set demand.as_of_dates=1 --set demand.calibration_dates=1 "$@"
            scored_later "$to" "$version" "$asked_from" 7 4 "$@"
            mv "$to.part" "$to.json"
        done
    done
    for card in "$folder/intents/$lake".*.json; do
        version=$(sed -n 's/.*"version": *"\([^"]*\)".*/\1/p' "$card" | head -n 1)
        ask_once "${card%.json}.churn" "score_intents(features, '$version')['p_churn'] AS p FROM model_input" "$@"
        ask_once "${card%.json}.items" "pick['item_id'] AS item_id FROM (
            SELECT user_id, unnest(recommend(score_intents(features, '$version')['taste'], NULL, NULL, 5, '$version')) AS pick
            FROM model_input)" "$@"
    done
done
for lake_and_end in $shops; do
    lake=${lake_and_end%%:*} end=${lake_and_end##*:}
    # A training on the real lake takes minutes, so each network is trained once.
    [ "$lake" = simulated ] && seeds_here=$seeds || seeds_here=${seeds%% *}
    for seed in $seeds_here; do
        for network in $forecasters; do
            to="$folder/demand/$lake.$network.$seed"
            [ -f "$to.json" ] && continue
            echo "$lake: $network, demand, seed $seed" >&2
            # The behaviour network does not matter here, so it is small.
            train "$to" --date "$end" --set "demand.network=$network" --set "train.seed=$seed" --set model.width=8 \
                --set model.layers=1 --set model.backbone=rnn --set train.as_of_dates=2 "$@"
            mv "$to.part" "$to.json"
        done
    done
done

python3 -B "$here/tabulate_networks.py" "$folder" "$networks" "$forecasters" "$lakes" "$shops"
