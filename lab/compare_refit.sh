#!/bin/sh
# Does a network predict better when, after its figures are known, it trains on the held-out dates and users too? Trains models that
# differ in train.refit_epochs, and scores every user on a date after all of them against what was bought in the seven days that
# followed.
# The demand network does not matter here, so it is as small as possible. DIR holds one folder per set, with files as published or packed.
# usage: compare_refit.sh DIR [EPOCHS ...]
# INTENTCAST (target/release/intentcast) is the binary. WORK (a temporary folder) holds the lakes and models.
set -eu
data=${1:?usage: compare_refit.sh DIR [EPOCHS ...]}
shift
counts=${*:-0 1 3}
here=$(dirname "$0")
# shellcheck disable=SC2034 # common.sh reads it
job=${INTENTCAST:-target/release/intentcast}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
# shellcheck source=lab/common.sh
. "$here/common.sh"

compare() { # LAKE DATE
    lake=$1 date=$2
    for epochs in $counts; do
        output=$work/$lake-$date-$epochs
        [ -f "$output/models/champion" ] ||
            "$job" --set train.refit_epochs="$epochs" --set demand.width=4 --set demand.horizon_days=7 \
                --set demand.history_days=28 --set demand.as_of_dates=2 train --lake "$work/$lake" --output "$output" --date "$date" \
                >"$output.txt" 2>>"$work/$lake.log"
        for member in published network; do
            score="s['p_purchase']"
            [ "$member" = published ] || score="s['members']['network']['p_purchase']"
            "$job" sql --lake "$work/$lake" --output "$output" --date "$date" --format csv \
                -c "SELECT user_id, $score AS p FROM (SELECT user_id, score_intents(features, '', 'members') AS s
                    FROM model_input WHERE events_lifetime > 0)" >"$output.$member.csv" 2>>"$work/$lake.log"
        done
    done
    "$job" sql --lake "$work/$lake" --output "$work/$lake-$date-0" --date "$(later "$date" 7)" --format csv \
        -c "SELECT DISTINCT user_id FROM user_event WHERE event_type = 'purchase' AND event_day >= DATE '$date'" \
        >"$work/$lake-$date.bought.csv" 2>>"$work/$lake.log"
    for epochs in $counts; do
        for member in published network; do
            python3 "$here/tabulate_refit.py" "$lake, $date" "$epochs" "$member" \
                "$work/$lake-$date-$epochs.$member.csv" "$work/$lake-$date.bought.csv"
        done
    done
}

echo "| set, date | refit_epochs | scores | users | bought | AUC | log loss | mean score |"
echo "|---|---|---|---|---|---|---|---|"
imported "$work/online-retail-ii" online-retail-ii "$data/online-retail-ii"/*.csv*
imported "$work/tmall" tmall "$data"/tmall-brands/*.csv*
for date in ${TMALL_DATES:-2014-06-25 2014-07-08}; do compare tmall "$date"; done
for date in ${RETAIL_DATES:-2010-10-28 2010-11-25}; do compare online-retail-ii "$date"; done
echo "lakes, models and logs: $work" >&2
