#!/bin/sh
# Trains the behaviour network from more and fewer past dates, with larger and smaller weights, and with purchases that weigh more
# and less in the loss, on a simulated shop; scores all users on four later dates; and writes how well that told who bought within
# seven days into docs/models/training.md, between its markers. A training whose figures are there already is skipped.
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

# past dates, weight decay, what purchases are of the loss, weights of positives
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

PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models/training.md" "$trained_at" <<'EOF_PYTHON'
import collections, pathlib, random, sys
from documents import fill, table
from ranking import Outcomes, Ranking, drawn, mean, means, spread

folder, doc = map(pathlib.Path, sys.argv[1:3])
IN_USE = (12, 0.3, 0.5, "none")
DRAWS = 200
bought, chance = Outcomes(folder / "bought.csv", sys.argv[3], 8), random.Random(7)
trainings = collections.defaultdict(list)
for path in sorted((folder / "figures").glob("*.done")):
    dates, decay, share, weights, _ = path.name.removesuffix(".done").split(",")
    scores = [path.with_suffix(f".{week}.csv") for week in range(4)]
    trainings[int(dates), float(decay), float(share), weights].append(bought.ranking(scores))
# The same users drawn for all rows: what differs is the training.
draws = drawn(trainings[IN_USE], chance, DRAWS)
found = {row: [means(of, figure, draws, chance) for figure in (Ranking.auc, Ranking.average_precision)]
         for row, of in sorted(trainings.items())}
lines = []
for (dates, decay, share, weights), figures in found.items():
    row = (dates, decay, share, weights)
    cells = [str(dates), f"{decay:g}", f"{share:g}", weights]
    for (whole, parts), (of_use, parts_of_use) in zip(figures, found[IN_USE]):
        cells.append(f"{whole:.3f}")
        cells.append("" if row == IN_USE else spread(whole - of_use, [a - b for a, b in zip(parts, parts_of_use)], "+.3f"))
    lines.append([*cells, f"{mean([of.log_loss() for of in trainings[row]]):.4f}"])
head = ["dates", "weight decay", "purchase share", "class weights", "AUC of purchase", "more than in use (95 %)", "AP",
        "more than in use (95 %)", "log loss"]
text = table(head, lines)
print(text)
fill(doc, "compare_training", text)
EOF_PYTHON
