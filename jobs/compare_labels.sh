#!/bin/sh
# Trains with 1 %, 10 % and all of the labels, with and without what unlabelled histories teach, on a simulated shop; scores all
# users on four later dates; and writes how well that told who bought within seven days into docs/models/sequences.md, between
# its markers. A training whose figures are there already is skipped.
# usage: compare_labels.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the lake; SEEDS ("42 43 44") are the trainings of each row.
set -eu
job=${1:?usage: compare_labels.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]}
folder=${2:?usage: compare_labels.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]}
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
        --set train.batch_rows=64 --set model.content_inputs=false --set demand.content_inputs=false --set demand.width=4 \
        --set demand.horizon_days=7 --set demand.history_days=28 --set demand.as_of_dates=1 --set demand.calibration_dates=1 \
        "$@" </dev/null 2>>"$folder/log"
}
simulated "$folder/lake"
bought_before "$folder/bought.csv" "$(later 2026-01-01 "$days")"
trained_at=$(later 2026-01-01 $((days - 33)))

# backbone, pretraining, what unlabelled users teach; the transformer sees the next event, which only another one can guess
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
        # With all labels nobody is unlabelled.
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

PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models/sequences.md" "$trained_at" <<'EOF_PYTHON'
import collections, json, pathlib, random, sys
from documents import fill, table
from ranking import Outcomes, Ranking, drawn, mean, means, spread

folder, doc = map(pathlib.Path, sys.argv[1:3])
DRAWS = 200
bought, chance, draws, plain = Outcomes(folder / "bought.csv", sys.argv[3], 8), random.Random(7), None, None
trainings = collections.defaultdict(list)
for path in sorted((folder / "figures").glob("*.json")):
    share, backbone, pretraining, unlabelled, _ = path.name.removesuffix(".json").split(",")
    helped = (pretraining, unlabelled) != ("none", "none")
    trainings[float(share), backbone != "transformer", backbone, helped, pretraining, unlabelled].append(path)

head = ["labels", "users with labels", "backbone", "pretraining", "unlabelled", "AUC of purchase (95 %)",
        "more than by labels alone (95 %)", "AP", "more than by labels alone (95 %)", "log loss", "seconds"]
lines = []
for (share, _, backbone, helped, pretraining, unlabelled), paths in sorted(trainings.items()):
    rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(4)]) for path in paths]
    # The same users drawn for all rows.
    draws = draws or drawn(rankings, chance, DRAWS)
    found = [means(rankings, figure, draws, chance) for figure in (Ranking.auc, Ranking.average_precision)]
    gains = ["", ""]
    if not helped:
        plain = (share, backbone), found
    elif plain and plain[0] == (share, backbone):
        gains = [spread(whole - alone, [a - b for a, b in zip(parts, of_alone)], "+.3f")
                 for (whole, parts), (alone, of_alone) in zip(found, plain[1])]
    cards = [json.loads(path.read_text())["figures"] for path in paths]
    seconds = min(f["train_seconds_intent"] + f.get("train_seconds_pretraining", 0) for f in cards)
    cells = [f"{share:.0%}", f"{cards[0]['users_train']:,.0f}", backbone, pretraining, unlabelled, spread(*found[0]),
             gains[0], f"{found[1][0]:.3f}", gains[1], f"{mean([of.log_loss() for of in rankings]):.4f}",
             f"{seconds:.0f}"]
    lines.append(cells)
text = table(head, lines)
print(text)
fill(doc, "compare_labels", text)
EOF_PYTHON
