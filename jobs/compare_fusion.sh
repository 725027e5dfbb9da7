#!/bin/sh
# Trains with every fusion, and with the modality left out, on lakes whose taste shows in one modality alone; scores all users
# on three dates from three weeks after the training on, when most items are new; and writes how well that told who bought
# within seven days into docs/models/fusion.md. Figures that are there already are kept: an interrupted run goes on.
# usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]
# TEXT_ENCODER: a Hugging Face folder. USERS, ITEMS and DAYS (12000, 3000, 110) size the lakes: with few items, most categories
# have one that is always sold, and its id says what its content would. Networks are small (below), so that two cores need an
# hour; --set makes them larger. SIGNALS ("text image mixed sequence") says which lakes, FUSIONS which networks, SEEDS (42)
# the start of the weights and the order of the rows of each training: more of them tell a fusion from a lucky start. Runs for
# other lakes, networks or seeds may share FOLDER.
set -eu
job=${1:?usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]}
folder=${2:?usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]}
encoder=${3:?usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]}
shift 3
users=${USERS:-12000} items=${ITEMS:-3000} days=${DAYS:-110}
here=$(dirname "$0")
. "$here/comparing.sh"
trained_at=$(later 2026-01-01 $((days - 42))) asked_from=$(later 2026-01-01 $((days - 21)))
mkdir -p "$folder/figures" "$folder/unordered/features"
# Equal times are ordered by the events' keys, which are hashes of their ids.
recent="$folder/unordered/features/user_recent.sql"
sed -e "s/ e\.ts,/ date_trunc('day', e.ts),/" -e 's/ e\.dwell_ms,/ CAST(NULL AS BIGINT),/' \
    "$here/../sql/features/user_recent.sql" >"$recent.$$"
for part in "date_trunc('day', e.ts)" 'CAST(NULL AS BIGINT)'; do
    grep -qF "$part" "$recent.$$" || {
        echo "sql/features/user_recent.sql: expected e.ts and e.dwell_ms to leave out, found no place for $part" >&2
        exit 1
    }
done
mv "$recent.$$" "$recent"

for signal in ${SIGNALS:-text image mixed sequence}; do
    [ -f "$folder/$signal.done" ] || {
        rm -rf "$folder/$signal"
        "$job" simulate --to "$folder/$signal" --users "$users" --items "$items" --days "$days" --seed 11 --signal "$signal"
        touch "$folder/$signal.done"
    }
    for fusion in ${FUSIONS:-without sum concat gate attention multilevel}; do
        pictures=true read=$encoder sql= by=$fusion
        # Without what shows the taste, but with all else: where that is the sequence, the events of a day have no order and no
        # dwell; of mixed lakes, neither that nor any content.
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

PYTHONPATH=$here python3 -B - "$folder/figures" "$here/../docs/models/fusion.md" "$asked_from" <<'EOF_PYTHON'
import json, pathlib, random, sys
from documents import fill
from ranking import Outcomes, Ranking, drawn, means, spread

figures, doc = map(pathlib.Path, sys.argv[1:3])
FUSIONS = ("without", "sum", "concat", "gate", "attention", "multilevel")
DRAWS = 200

lines = ["| taste shows in | fusion | AUC of purchase (95 %) | more than without (95 %) | AP (95 %) | trainings | parameters |",
         "|---|---|---|---|---|---|---|"]
for signal in ("text", "image", "mixed", "sequence"):
    if not (figures / f"{signal}.bought.csv").exists():
        continue
    bought = Outcomes(figures / f"{signal}.bought.csv", sys.argv[3], 7)
    chance, draws, without = random.Random(7), None, None
    for fusion in FUSIONS:
        paths = sorted(figures.glob(f"{signal}.{fusion}.*.json"))
        if not paths:
            continue
        rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(3)]) for path in paths]
        if draws is None:
            # The same users drawn for all fusions: what differs is the fusion.
            draws = drawn(rankings, chance, DRAWS)
        auc, aucs = means(rankings, Ranking.auc, draws, chance)
        gain = ""
        if fusion == "without":
            without = auc, aucs
        elif without:
            gain = spread(auc - without[0], [a - b for a, b in zip(aucs, without[1])], "+.3f")
        ap, aps = means(rankings, Ranking.average_precision, draws, chance)
        f = json.loads(paths[0].read_text())["figures"]
        lines.append(f"| {signal} | {fusion} | {spread(auc, aucs)} | {gain} | {spread(ap, aps)} | {len(paths)} | "
                     f"{f['parameters_intent']:,.0f} |")
text = "\n".join(lines)
print(text)
fill(doc, "compare_fusion", text)
EOF_PYTHON
