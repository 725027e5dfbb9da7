#!/bin/sh
# Trains with every fusion, and with the modality left out, on lakes whose taste shows in one modality alone, and writes the
# table of docs/models/fusion.md between its markers. Figures that are there already are kept: an interrupted run goes on.
# usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]
# TEXT_ENCODER: a Hugging Face folder. USERS, ITEMS and DAYS (3000, 600, 120) size the lakes.
set -eu
job=${1:?usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]}
folder=${2:?usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]}
encoder=${3:?usage: compare_fusion.sh PATH_OF_INTENTCAST FOLDER TEXT_ENCODER [--set section.key=value ...]}
shift 3
users=${USERS:-3000} items=${ITEMS:-600} days=${DAYS:-120}
date=$(date -u -d "2026-01-01 + $days days" +%F)
mkdir -p "$folder/figures"

for signal in mixed sequence text image; do
    [ -f "$folder/$signal.done" ] || {
        rm -rf "$folder/$signal"
        "$job" simulate --to "$folder/$signal" --users "$users" --items "$items" --days "$days" --seed 11 --signal "$signal"
        touch "$folder/$signal.done"
    }
    for fusion in without sum concat gate attention multilevel; do
        to="$folder/figures/$signal.$fusion.json"
        [ -f "$to" ] && continue
        case $fusion in
            # Without what shows the taste, but with all else: of mixed lakes, without any content.
            without)
                case $signal in
                    text) inputs="model.content_inputs=true" read= ;;
                    image) inputs="model.content_inputs=false" read=$encoder ;;
                    *) inputs="model.content_inputs=false" read= ;;
                esac
                by=sum ;;
            *) inputs="model.content_inputs=true" read=$encoder by=$fusion ;;
        esac
        echo "$signal: $fusion" >&2
        version=$("$job" train --lake "$folder/$signal" --output "$folder/$signal.out" --date "$date" \
            --set "$inputs" --set "model.text_encoder=$read" --set "model.fusion=$by" --set score.device=cpu \
            --set demand.width=4 --set demand.horizon_days=7 --set demand.history_days=28 "$@" \
            </dev/null | sed -n 's/^model \([^ ]*\) .*/\1/p')
        cp "$folder/$signal.out/models/$version/bundle.json" "$to.part"
        mv "$to.part" "$to"
    done
done

python3 - "$folder/figures" "$(dirname "$0")/../docs/models/fusion.md" <<'EOF_PYTHON'
import json, pathlib, re, sys

figures, doc = map(pathlib.Path, sys.argv[1:])
lines = ["| taste shows in | fusion | AUC of purchase | AP of purchase | parameters | seconds of training |", "|---|---|---|---|---|---|"]
for signal in ("mixed", "sequence", "text", "image"):
    for fusion in ("without", "sum", "concat", "gate", "attention", "multilevel"):
        path = figures / f"{signal}.{fusion}.json"
        if not path.exists():
            continue
        f = json.loads(path.read_text())["figures"]
        of = lambda name: (f"{f[name]:.3f} ({f[name + '_low']:.3f} to {f[name + '_high']:.3f})"
                           if name + "_low" in f else f"{f.get(name, float('nan')):.3f}")
        lines.append(f"| {signal} | {fusion} | {of('auc_test_purchase')} | {of('ap_test_purchase')} | "
                     f"{f['parameters_intent']:,.0f} | {f['train_seconds_intent']:.0f} |")
text = "\n".join(lines)
print(text)
begin, end = "<!-- compare_fusion: begin -->", "<!-- compare_fusion: end -->"
doc.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", doc.read_text(), flags=re.S))
EOF_PYTHON
