#!/bin/sh
# How well does each loss predict expected units and spend? Trains the behaviour network with every amount loss on a simulated
# shop and on a real one, scores all users on four later dates, a week apart, and prints how close the amounts are to what each
# user bought within seven days, and how well the same network predicts who buys.
# Skips results that exist in FOLDER, so an interrupted run resumes.
# usage: compare_amounts.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the simulated lake. SEEDS ("42 43 44") are the trainings of each loss.
# RETAIL_FOLDER holds the CSV files of the first year of UCI Online Retail II (also .gz or .zst). Without it, only the
# simulated lake is used.
set -eu
usage='usage: compare_amounts.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]'
job=${1:?$usage}
folder=${2:?$usage}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
days=${DAYS:-142}
here=$(dirname "$0")
. "$here/common.sh"
mkdir -p "$folder/figures"
simulated "$folder/simulated"
# The day after the lake's last day.
lakes="simulated:$(later 2026-01-01 "$days")"
if [ -n "$real" ]; then
    imported "$folder/online-retail-ii" online-retail-ii "$real"/*.csv*
    lakes="$lakes online-retail-ii:2010-12-10"
fi
# The demand network does not matter here, so it is as small as possible.
run() { # VERB [OPTION ...]
    verb=$1
    shift
    "$job" "$verb" --lake "$folder/$lake" --output "$folder/$lake.out" --set score.device=cpu --set model.width=32 \
        --set model.layers=1 --set train.batch_rows=64 --set train.epochs_max=5 --set model.content_inputs=false \
        --set demand.content_inputs=false --set demand.width=4 --set demand.horizon_days=7 --set demand.history_days=28 \
        --set demand.as_of_dates=1 --set demand.calibration_dates=1 "$@" </dev/null 2>>"$folder/log"
}

losses="poisson tweedie negative_binomial mse rmse huber mae"
for lake_and_end in $lakes; do
    lake=${lake_and_end%%:*} end=${lake_and_end##*:}
    trained_at=$(later "$end" -28)
    [ -f "$folder/$lake.bought.csv" ] || {
        run sql --date "$end" --format csv -c "
            SELECT user_id, CAST(ts AS DATE) AS day, sum(quantity) AS units, sum(quantity * price) AS spend
            FROM events WHERE event_type = 'purchase' AND quantity > 0 AND user_id IS NOT NULL GROUP BY ALL" >"$folder/$lake.part"
        mv "$folder/$lake.part" "$folder/$lake.bought.csv"
    }
    a_week() { echo "coalesce(features['$1_90d'], 0) * 7.0 / 90 AS $1"; }
    if [ ! -f "$folder/figures/$lake,rate.3.csv" ]; then
        asked_later "$folder/figures/$lake,rate" "$(a_week units), $(a_week spend) FROM model_input" "$trained_at" 7 4
    fi
    for loss in $losses; do
        for seed in ${SEEDS:-42 43 44}; do
            figures="$folder/figures/$lake,$loss,$seed"
            [ -f "$figures.json" ] && continue
            echo "$lake: $loss, seed $seed" >&2
            version=$(trained --date "$trained_at" --set "model.amount_loss=$loss" --set "train.seed=$seed" "$@")
            asked_later "$figures" "s['expected_units'] AS units, s['expected_spend'] AS spend, s['p_purchase'] AS p FROM (
                SELECT user_id, score_intents(features, '$version') AS s FROM model_input)" "$trained_at" 7 4 "$@"
            cp "$folder/$lake.out/models/$version/bundle.json" "$figures.part"
            mv "$figures.part" "$figures.json"
        done
    done
done

python3 -B "$here/tabulate_amounts.py" "$folder" "$losses" $lakes
