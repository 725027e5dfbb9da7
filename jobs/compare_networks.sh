#!/bin/sh
# Trains every backbone, head, loss and demand network on a simulated lake and on a real one, and writes the tables of
# docs/models/ between their markers. A training whose figures are there already is skipped, so an interrupted run goes on.
# usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV] [--set section.key=value ...]
# USERS, ITEMS and DAYS (2000, 60, 120) size the simulated lake.
# TMALL_CSV: t_alibaba_data.csv of the Alibaba competition of 2014 (also .gz or .zst); without it the simulated lake alone.
set -eu
job=${1:?usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV] [--set section.key=value ...]}
folder=${2:?usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV] [--set section.key=value ...]}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
users=${USERS:-2000} items=${ITEMS:-60} days=${DAYS:-120}
mkdir -p "$folder"

[ -f "$folder/simulated.done" ] || {
    rm -rf "$folder/simulated"
    "$job" simulate --to "$folder/simulated" --users "$users" --items "$items" --days "$days" --seed 11 --start 2026-01-01
    touch "$folder/simulated.done"
}
# The day after the last one: what happened until then is all there is to learn from.
lakes="simulated:$(date -u -d "2026-01-01 + $days days" +%F)"
if [ -n "$real" ]; then
    [ -f "$folder/tmall.done" ] || {
        rm -rf "$folder/tmall"
        "$job" import tmall "$real" --to "$folder/tmall"
        touch "$folder/tmall.done"
    }
    lakes="$lakes tmall:2014-07-16"
fi

# backbone head loss demand-network. What stands in one row has nothing to do with each other: each network has a seed
# and weights of its own.
runs="transformer:sigmoid:bce:gru
causal:sigmoid:bce:lstm
lstm:sigmoid:bce:rnn
gru:sigmoid:bce:tcn
rnn:sigmoid:bce:gru
transformer:sigmoid:focal:gru
transformer:sigmoid:iou:gru
transformer:crf:crf:gru"
for lake in $lakes; do
    name=${lake%%:*}
    date=${lake##*:}
    # The real lake does not know when its events arrived.
    [ "$name" = tmall ] && arrival=none || arrival=column
    for run in $runs; do
        IFS=: read -r backbone head loss demand <<RUN
$run
RUN
        to="$folder/figures/$name.$backbone.$head.$loss.$demand.json"
        [ -f "$to" ] && continue
        mkdir -p "$folder/figures"
        echo "$name: $backbone, $head, $loss; $demand" >&2
        version=$("$job" train --lake "$folder/$name" --output "$folder/$name.out" --date "$date" \
            --set "model.backbone=$backbone" --set "model.head=$head" --set "model.loss=$loss" \
            --set "demand.network=$demand" --set "lake.arrival=$arrival" --set model.content_inputs=false --set demand.content_inputs=false --set score.device=cpu "$@" | sed -n 's/^model \([^ ]*\) .*/\1/p')
        cp "$folder/$name.out/models/$version/bundle.json" "$to.part"
        mv "$to.part" "$to"
    done
done

here=$(dirname "$0")
PYTHONPATH=$here python3 -B - "$folder/figures" "$here/../docs/models" <<'EOF_PYTHON'
import json, pathlib, sys
from documents import fill

figures, docs = map(pathlib.Path, sys.argv[1:])
cards = []
for path in sorted(figures.glob("*.json")):
    lake, *names, _ = path.name.split(".")
    cards.append((lake, names, json.loads(path.read_text())["figures"]))

def row(cells):
    return "| " + " | ".join(cells) + " |"

def table(head, rows):
    return "\n".join([row(head), "|" + "---|" * len(head)] + [row(r) for r in rows])

def interval(f, name):
    # A lake may lack the class, or so many test users that an interval means something.
    if name not in f:
        return "none"
    low, high = f.get(name + "_low"), f.get(name + "_high")
    return f"{f[name]:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")

def sequences(lake):
    rows = []
    for of, (backbone, head, loss, _), f in cards:
        if of == lake:
            rows.append([backbone, head, loss, interval(f, "auc_test_purchase"), interval(f, "ap_test_purchase"),
                         f"{f['intents_decoded_whole_test']:.3f}", f"{f['parameters_intent']:,.0f}",
                         f"{f['train_seconds_intent']:.0f}", f"{f['users_scored_per_second']:,.0f}"])
    beside = next(f for of, _, f in cards if of == lake)
    rows.append(["recency and frequency", "", "", interval(beside, "auc_test_purchase_recency_frequency")] + [""] * 5)
    users = f"{beside['users_train']:.0f} users trained on, {beside['users_test']:.0f} tested."
    return f"**{lake}**: {users}\n\n" + table(
        ["backbone", "head", "loss", "AUC of purchase", "AP of purchase", "all six right", "parameters",
         "seconds of training", "users scored a second"], rows)

def demand(lake):
    seen, rows = set(), []
    for of, (*_, network), f in cards:
        if of == lake and network not in seen:
            seen.add(network)
            rows.append([network, f"{f['pinball_test']:.4f}", f"{f['pinball_test_seasonal_naive']:.4f}",
                         f"{f['coverage_test_q90']:.3f}", f"{f['parameters_demand']:,.0f}",
                         f"{f['train_seconds_demand']:.0f}"])
    return f"**{lake}**\n\n" + table(
        ["network", "pinball", "seasonal naive", "days at or below q90", "parameters", "seconds of training"], rows)

lakes = sorted({lake for lake, _, _ in cards})
for name, of in [("sequences", sequences), ("demand", demand)]:
    text = "\n\n".join(of(lake) for lake in lakes)
    print(text + "\n")
    fill(docs / f"{name}.md", "compare_networks", text)
EOF_PYTHON
