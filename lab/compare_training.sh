#!/bin/sh
# How many past dates, how much weight decay and which weight of purchases in the loss are best? Trains the behaviour network
# with each setting on a simulated shop, scores all users on four later dates and prints how well the scores predict who buys
# within seven days.
# Skips results that exist in FOLDER, so an interrupted run resumes.
# usage: compare_training.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the lake. SEEDS ("42 43 44") are the trainings of each row.
set -eu
usage='usage: compare_training.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]'
job=${1:?$usage}
folder=${2:?$usage}
shift 2
seeds=${SEEDS:-42 43 44}
here=$(dirname "$0")
. "$here/common.sh"
mkdir -p "$folder/figures"
run() { # VERB [OPTION ...]
    verb=$1
    shift
    run_on_shop "$verb" --set train.epochs_max=5 "$@"
}
prepare_shop

# past dates, weight decay, share of purchases in the loss, class weights
rows="3 0.3 0.5 none
8 0.3 0.5 none
12 0.01 0.5 none
12 0.1 0.5 none
12 0.3 0.5 none
12 1.0 0.5 none
12 0.3 0.25 none
12 0.3 0 none
12 0.3 0 balanced"
echo "$rows" | while read -r dates decay share weights; do
    for seed in $seeds; do
        to="$folder/figures/$dates,$decay,$share,$weights,$seed"
        [ -f "$to.done" ] && continue
        echo "$dates dates, weight decay $decay, purchase share $share, weights $weights, seed $seed" >&2
        version=$(trained --date "$trained_at" --set "train.as_of_dates=$dates" --set "model.weight_decay=$decay" \
            --set "model.purchase_share=$share" --set "model.class_weights=$weights" --set "train.seed=$seed" "$@")
        scored_later "$to" "$version" "$trained_at" 8 4 "$@"
        touch "$to.done"
    done
done

python3 -B "$here/tabulate_training.py" "$folder" "$trained_at"
