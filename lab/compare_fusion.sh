#!/bin/sh
# Does each fusion find a taste that shows in one modality alone? Trains with every fusion, and without the modality, on lakes
# made for this question, and scores all users on three dates from three weeks after the training, when most items are new.
# Prints how well the scores predict who buys within seven days.
# Skips results that exist in FOLDER, so an interrupted run resumes.
# usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]
# TEXT_ENCODER is a Hugging Face folder. USERS, ITEMS and DAYS (12000, 3000, 110) size the lakes. With few items, most
# categories have one that is always sold, and its id reveals what its content would. The networks are small, so that two
# cores need an hour; --set makes them larger. SIGNALS ("text image mixed sequence") selects the lakes, FUSIONS the networks.
# SEEDS (42) sets the initial weights and the row order of each training; several seeds separate a fusion from a lucky start.
# Runs for other lakes, networks or seeds may share FOLDER.
set -eu
usage='usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]'
job=${1:?$usage}
folder=${2:?$usage}
encoder=${3:?$usage}
shift 3
users=${USERS:-12000} items=${ITEMS:-3000} days=${DAYS:-110}
here=$(dirname "$0")
. "$here/common.sh"
trained_at=$(later 2026-01-01 $((days - 42))) asked_from=$(later 2026-01-01 $((days - 21)))
mkdir -p "$folder/figures" "$folder/unordered/features"
# This copy of the view hides the order of a day's events: events of equal time are ordered by their keys, which are hashes.
recent="$folder/unordered/features/user_recent.sql"
sed -e "s/last_events_max(), \([a-z_]*\.ts\),/last_events_max(), date_trunc('day', \1),/" \
    -e 's/ [a-z_]*\.dwell_ms,/ CAST(NULL AS BIGINT),/' \
    "$here/../sql/features/user_recent.sql" >"$recent.$$"
for part in "date_trunc('day', " 'CAST(NULL AS BIGINT)'; do
    grep -qF "$part" "$recent.$$" || {
        echo "sql/features/user_recent.sql: expected to replace ts and dwell_ms of last_events, found no $part" >&2
        exit 1
    }
done
mv "$recent.$$" "$recent"

for signal in ${SIGNALS:-text image mixed sequence}; do
    [ -f "$folder/$signal.done" ] || {
        rm -rf "$folder/$signal"
        "$job" simulate --to "$folder/$signal" --users "$users" --items "$items" --days "$days" --seed 11 --signal "$signal" >&2
        touch "$folder/$signal.done"
    }
    for fusion in ${FUSIONS:-without sum concat gate attention multilevel}; do
        pictures=true read=$encoder sql= by=$fusion
        # `without` leaves out what shows the taste. For `sequence` that is the order and dwell of a day's events, for `mixed`
        # both of these and all contents.
        case $fusion.$signal in
            without.text) by=sum read= ;;
            without.image) by=sum pictures=false ;;
            without.sequence) by=sum sql=$folder/unordered ;;
            without.mixed) by=sum pictures=false read= sql=$folder/unordered ;;
        esac
        run() { # VERB [OPTION ...]
            verb=$1
            shift
            "$job" "$verb" --lake "$folder/$signal" --output "$folder/$signal.out" --set "model.content_inputs=$pictures" \
                --set "model.text_encoder=$read" --set "model.fusion=$by" --set "sql.folder=$sql" --set score.device=cpu \
                --set model.width=32 --set model.layers=1 --set features.last_events=32 --set intents.churn_days=7 \
                --set train.batch_rows=128 --set train.epochs_max=10 --set train.item_dropout=0.5 --set demand.width=4 \
                --set demand.horizon_days=7 --set demand.history_days=28 "$@" </dev/null 2>>"$folder/$signal.log"
        }
        for seed in ${SEEDS:-42}; do
            to="$folder/figures/$signal.$fusion.$seed"
            [ -f "$to.json" ] && continue
            echo "$signal: $fusion, seed $seed" >&2
            version=$(trained --date "$trained_at" --set "train.seed=$seed" "$@")
            scored_later "$to" "$version" "$asked_from" 7 3 "$@"
            cp "$folder/$signal.out/models/$version/bundle.json" "$to.part"
            mv "$to.part" "$to.json"
        done
    done
    bought_before "$folder/figures/$signal.bought.csv" "$(later 2026-01-01 "$days")"
done

python3 -B "$here/tabulate_fusion.py" "$folder/figures" "$asked_from"
