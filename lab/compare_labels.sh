#!/bin/sh
# What does learning from users without labels add? Trains with 1 %, 10 % and all of the labels, with and without each
# pretraining and each way to learn from unlabelled users, on a simulated shop. Scores all users on four later dates and prints
# how well the scores predict who buys within seven days.
# Skips results that exist in FOLDER, so an interrupted run resumes.
# usage: compare_labels.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the lake. SEEDS ("42 43 44") are the trainings of each row.
set -eu
usage='usage: compare_labels.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]'
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
    run_on_shop "$verb" --set model.content_inputs=false --set demand.content_inputs=false \
        --set demand.as_of_dates=1 --set demand.calibration_dates=1 "$@"
}
prepare_shop

# backbone, pretraining, method for unlabelled users. The transformer sees the next event, so only another backbone can be
# pretrained to predict it.
methods="transformer none none
transformer masked none
transformer contrastive none
transformer none consistency
transformer none pseudo_labels
transformer masked pseudo_labels
causal none none
causal next_event none"
for share in 0.01 0.1 1.0; do
    echo "$methods" | while read -r backbone pretraining unlabelled; do
        # With all labels, no user is unlabelled.
        [ "$share" = 1.0 ] && [ "$unlabelled" != none ] && continue
        for seed in $seeds; do
            to="$folder/figures/$share,$backbone,$pretraining,$unlabelled,$seed"
            [ -f "$to.json" ] && continue
            echo "$share of the labels, $backbone, pretraining $pretraining, unlabelled $unlabelled, seed $seed" >&2
            version=$(trained --date "$trained_at" --set "train.labels_share=$share" --set "model.backbone=$backbone" \
                --set "train.pretraining=$pretraining" --set "train.unlabelled=$unlabelled" --set "train.seed=$seed" "$@")
            scored_later "$to" "$version" "$trained_at" 8 4 "$@"
            cp "$folder/out/models/$version/bundle.json" "$to.part"
            mv "$to.part" "$to.json"
        done
    done
done

python3 -B "$here/tabulate_labels.py" "$folder" "$trained_at"
