#!/bin/sh
# Draws what the guards against overfitting are for: trains on the tmall sample without any, as by default, and with all of them,
# for thirty epochs without early stopping, and draws losses of training and validation into docs/models/overfitting.svg.
# A training whose curves are there already is skipped.
# usage: draw_overfitting.sh PATH_OF_INTENTCAST FOLDER TMALL_CSV
# TMALL_CSV: t_alibaba_data.csv of the Alibaba competition of 2014 (also .gz or .zst).
set -eu
job=${1:?usage: draw_overfitting.sh PATH_OF_INTENTCAST FOLDER TMALL_CSV}
folder=${2:?usage: draw_overfitting.sh PATH_OF_INTENTCAST FOLDER TMALL_CSV}
tmall=${3:?usage: draw_overfitting.sh PATH_OF_INTENTCAST FOLDER TMALL_CSV}
here=$(dirname "$0")
. "$here/comparing.sh"
mkdir -p "$folder"
imported "$folder/tmall" tmall "$tmall"
curves() { # NAME [OPTION ...]
    name=$1
    shift
    [ -f "$folder/$name.jsonl" ] && return
    rm -rf "${folder:?}/$name.out"
    "$job" train --lake "$folder/tmall" --output "$folder/$name.out" --date 2014-07-16 --set lake.arrival=none \
        --set train.epochs_max=30 --set train.patience_epochs=30 --set train.learning_rate=0.002 --set score.device=cpu \
        --set demand.width=4 --set demand.horizon_days=7 --set demand.history_days=28 --set demand.as_of_dates=1 \
        --set demand.calibration_dates=1 "$@" </dev/null 2>>"$folder/log"
    cp "$folder/$name.out"/training/*/metrics.jsonl "$folder/$name.jsonl"
}
curves none --set model.dropout=0 --set model.weight_decay=0 --set train.weight_decay=0
curves default
curves all --set model.dropout=0.3 --set train.label_smoothing=0.02 --set train.augmentation=all --set train.item_dropout=0.2
python3 "$here/training_curves.py" --lesson intents "without any guard=$folder/none.jsonl" "by default=$folder/default.jsonl" \
    "with all guards=$folder/all.jsonl" >"$folder/overfitting.svg"
mv "$folder/overfitting.svg" "$here/../docs/models/overfitting.svg"
