#!/bin/sh
# Trains with 1 %, 10 % and all of the labels, with and without what unlabelled histories teach, and writes the table of
# docs/models/sequences.md between its markers. A training whose figures are there already is skipped.
# usage: compare_labels.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 60, 120) size the simulated lake.
set -eu
job=${1:?usage: compare_labels.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]}
folder=${2:?usage: compare_labels.sh PATH_OF_INTENTCAST FOLDER [--set section.key=value ...]}
shift 2
days=${DAYS:-120}
mkdir -p "$folder/labels"
[ -f "$folder/labels.done" ] || {
    rm -rf "$folder/labels.lake"
    "$job" simulate --to "$folder/labels.lake" --users "${USERS:-4000}" --items "${ITEMS:-60}" --days "$days" --seed 13 --start 2026-01-01
    touch "$folder/labels.done"
}
date=$(date -u -d "2026-01-01 + $days days" +%F)

# pretraining, what unlabelled users teach
methods="none none
masked none
contrastive none
none consistency
none pseudo_labels
masked consistency"
for share in 0.01 0.1 1.0; do
    echo "$methods" | while read -r pretraining unlabelled; do
        # With all labels nobody is unlabelled.
        [ "$share" = 1.0 ] && [ "$unlabelled" != none ] && continue
        to="$folder/labels/$share,$pretraining,$unlabelled.json"
        [ -f "$to" ] && continue
        echo "$share of the labels, pretraining $pretraining, unlabelled $unlabelled" >&2
        # The demand network has nothing to do with it: as small as it gets.
        version=$("$job" train --lake "$folder/labels.lake" --output "$folder/labels.out" --date "$date" \
            --set "train.labels_share=$share" --set "train.pretraining=$pretraining" --set "train.unlabelled=$unlabelled" \
            --set demand.width=4 --set demand.horizon_days=7 --set demand.history_days=28 --set model.content_inputs=false --set demand.content_inputs=false --set score.device=cpu "$@" \
            </dev/null | sed -n 's/^model \([^ ]*\) .*/\1/p')
        cp "$folder/labels.out/models/$version/bundle.json" "$to.part"
        mv "$to.part" "$to"
    done
done

here=$(dirname "$0")
PYTHONPATH=$here python3 -B - "$folder/labels" "$here/../docs/models/sequences.md" <<'EOF_PYTHON'
import json, pathlib, sys
from documents import fill

figures, doc = map(pathlib.Path, sys.argv[1:])
cards = {tuple(path.name.removesuffix(".json").split(",")): json.loads(path.read_text())["figures"]
         for path in figures.glob("*.json")}

def cell(name, f):
    return f"{f[name]:.3f} ({f[name + '_low']:.3f} to {f[name + '_high']:.3f})" if f"{name}_low" in f else f"{f[name]:.3f}"

lines = ["| labels | users with labels | pretraining | unlabelled | AUC of purchase | AP of purchase | AUC of cart | seconds |",
         "|---|---|---|---|---|---|---|---|"]
for (share, pretraining, unlabelled), f in sorted(cards.items(), key=lambda c: (float(c[0][0]), c[0][1] != "none", c[0])):
    seconds = f["train_seconds_intent"] + f.get("train_seconds_pretraining", 0)
    lines.append(f"| {float(share):.0%} | {f['users_train']:,.0f} | {pretraining} | {unlabelled} | "
                 f"{cell('auc_test_purchase', f)} | {cell('ap_test_purchase', f)} | {f['auc_test_cart']:.3f} | {seconds:.0f} |")
text = "\n".join(lines)
print(text)
fill(doc, "compare_labels", text)
EOF_PYTHON
