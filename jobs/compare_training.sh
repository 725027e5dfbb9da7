#!/bin/sh
# Trains the behaviour network from more and fewer past dates and with larger and smaller weights on a simulated shop; scores all
# users on four later dates; and writes how well that told who bought within seven days into docs/models/training.md, between
# its markers. A training whose figures are there already is skipped.
# usage: compare_training.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the lake; SEEDS ("42 43 44") are the trainings of each row.
set -eu
job=${1:?usage: compare_training.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]}
folder=${2:?usage: compare_training.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]}
shift 2
days=${DAYS:-142} seeds=${SEEDS:-42 43 44}
here=$(dirname "$0")
. "$here/comparing.sh"
mkdir -p "$folder/figures"
# The demand network has nothing to do with it: as small as it gets.
run() { # VERB [OPTION ...]
    verb=$1
    shift
    "$job" "$verb" --lake "$folder/lake" --output "$folder/out" --set score.device=cpu --set model.width=32 --set model.layers=1 \
        --set train.batch_rows=64 --set train.epochs_max=5 --set demand.width=4 --set demand.horizon_days=7 \
        --set demand.history_days=28 "$@" </dev/null 2>>"$folder/log"
}
simulated "$folder/lake"
bought_before "$folder/bought.csv" "$(later 2026-01-01 "$days")"
trained_at=$(later 2026-01-01 $((days - 33)))

# past dates, weight decay
rows="3 0.01
8 0.01
12 0.01
12 0.1
12 0.3
12 1.0"
echo "$rows" | while read -r dates decay; do
    for seed in $seeds; do
        to="$folder/figures/$dates,$decay,$seed"
        [ -f "$to.done" ] && continue
        echo "$dates dates, weight decay $decay, seed $seed" >&2
        version=$(trained --date "$trained_at" --set "train.as_of_dates=$dates" --set "model.weight_decay=$decay" \
            --set "train.seed=$seed" "$@")
        scored_later "$to" "$version" "$trained_at" 8 4 "$@"
        touch "$to.done"
    done
done

PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models/training.md" "$trained_at" <<'EOF_PYTHON'
import collections, pathlib, sys
from documents import fill
from ranking import Outcomes, mean

folder, doc = map(pathlib.Path, sys.argv[1:3])
bought = Outcomes(folder / "bought.csv", sys.argv[3], 8)
trainings = collections.defaultdict(list)
for path in sorted((folder / "figures").glob("*.done")):
    dates, decay, _ = path.name.removesuffix(".done").split(",")
    trainings[int(dates), float(decay)].append(bought.ranking([path.with_suffix(f".{week}.csv") for week in range(4)]))

def cell(values, digits=3):
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

lines = ["| `train.as_of_dates` | `model.weight_decay` | trainings | AUC of purchase (least to most) | AP | log loss |",
         "|---|---|---|---|---|---|"]
for (dates, decay), of in sorted(trainings.items()):
    lines.append(f"| {dates} | {decay:g} | {len(of)} | {cell([r.auc() for r in of])} | "
                 f"{cell([r.average_precision() for r in of])} | {cell([r.log_loss() for r in of], 4)} |")
text = "\n".join(lines)
print(text)
fill(doc, "compare_training", text)
EOF_PYTHON
