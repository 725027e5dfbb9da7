#!/bin/sh
# Trains every backbone, head and loss on a simulated lake and on a real one, scores all users on four later dates, a week apart,
# and writes how well that told who bought within seven days; trains every demand network, too; and fills the tables of
# docs/models/ between their markers. A training whose figures are there already is skipped, so an interrupted run goes on.
# usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV] [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the simulated lake; SEEDS ("42 43 44") are the trainings of each network.
# TMALL_CSV: t_alibaba_data.csv of the Alibaba competition of 2014 (also .gz or .zst); without it the simulated lake alone.
set -eu
job=${1:?usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV] [--set section.key=value ...]}
folder=${2:?usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV] [--set section.key=value ...]}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
days=${DAYS:-142} seeds=${SEEDS:-42 43 44}
here=$(dirname "$0")
. "$here/comparing.sh"
mkdir -p "$folder/intents" "$folder/demand"

simulated "$folder/simulated"
# The day after the last one: what happened until then is all there is to learn from.
lakes="simulated:$(later 2026-01-01 "$days")"
if [ -n "$real" ]; then
    imported "$folder/tmall" tmall "$real"
    lakes="$lakes tmall:2014-07-16"
fi

run() { # VERB [OPTION ...]
    verb=$1
    shift
    # The real lake does not know when its events arrived.
    [ "$lake" = tmall ] && arrival=none || arrival=column
    "$job" "$verb" --lake "$folder/$lake" --output "$folder/$lake.out" --set "lake.arrival=$arrival" \
        --set model.content_inputs=false --set demand.content_inputs=false --set score.device=cpu "$@" </dev/null 2>>"$folder/log"
}
train() { # CARD [OPTION ...]
    card=$1
    shift
    version=$(trained "$@")
    cp "$folder/$lake.out/models/$version/bundle.json" "$card.part"
}

# backbone head loss
networks="transformer sigmoid bce
causal sigmoid bce
lstm sigmoid bce
gru sigmoid bce
rnn sigmoid bce
transformer sigmoid focal
transformer sigmoid iou
transformer crf crf"
forecasters="gru lstm rnn tcn"
for of in $lakes; do
    lake=${of%%:*} end=${of##*:}
    asked_from=$(later "$end" -28)
    bought_before "$folder/$lake.bought.csv" "$end"
    for count in events_7d purchases_90d; do
        if [ ! -f "$folder/$lake.$count.3.csv" ]; then
            asked_later "$folder/$lake.$count" "coalesce(features['$count'], 0) AS p FROM model_input" "$asked_from" 7 4
        fi
    done
    for seed in $seeds; do
        echo "$networks" | while read -r backbone head loss; do
            to="$folder/intents/$lake.$backbone.$head.$loss.$seed"
            [ -f "$to.json" ] && continue
            echo "$lake: $backbone, $head, $loss, seed $seed" >&2
            # The demand network has nothing to do with it: as small as it gets.
            train "$to" --date "$asked_from" --set "model.backbone=$backbone" --set "model.head=$head" \
                --set "model.loss=$loss" --set "train.seed=$seed" --set demand.width=4 --set demand.horizon_days=7 \
                --set demand.history_days=28 --set demand.as_of_dates=1 --set demand.calibration_dates=1 "$@"
            scored_later "$to" "$version" "$asked_from" 7 4 "$@"
            mv "$to.part" "$to.json"
        done
    done
    for seed in $seeds; do
        for network in $forecasters; do
            to="$folder/demand/$lake.$network.$seed"
            [ -f "$to.json" ] && continue
            echo "$lake: $network, demand, seed $seed" >&2
            # Here the behaviour network is the one that does not matter.
            train "$to" --date "$end" --set "demand.network=$network" --set "train.seed=$seed" --set model.width=8 \
                --set model.layers=1 --set model.backbone=rnn --set train.as_of_dates=2 "$@"
            mv "$to.part" "$to.json"
        done
    done
done

PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models" "$networks" "$forecasters" $lakes <<'EOF_PYTHON'
import datetime, json, pathlib, random, sys
from documents import fill, table
from ranking import Outcomes, Ranking, drawn, mean, means, spread

folder, docs = map(pathlib.Path, sys.argv[1:3])
networks = [network.split() for network in sys.argv[3].splitlines()]
forecasters, lakes = sys.argv[4].split(), [lake.split(":") for lake in sys.argv[5:]]
DRAWS = 200

def figures(path):
    return json.loads(path.read_text())["figures"]

def sequences(lake, end):
    first = datetime.date.fromisoformat(end) - datetime.timedelta(days=28)
    bought, chance, draws, rows = Outcomes(folder / f"{lake}.bought.csv", str(first), 7), random.Random(7), None, []
    for network in networks:
        paths = sorted((folder / "intents").glob(".".join([lake, *network, "*", "json"])))
        if not paths:
            continue
        rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(4)]) for path in paths]
        # The same users drawn for all networks; times are those of the first seed, measured in one go.
        draws = draws or drawn(rankings, chance, DRAWS)
        cells = [spread(*means(rankings, figure, draws, chance)) for figure in (Ranking.auc, Ranking.average_precision)]
        cards = list(map(figures, paths))
        rows.append([*network, *cells, f"{mean([of.log_loss() for of in rankings]):.4f}",
                     f"{mean([f['intents_decoded_whole_test'] for f in cards]):.3f}", f"{cards[0]['parameters_intent']:,.0f}",
                     f"{cards[0]['train_seconds_intent']:.0f}", f"{cards[0]['users_scored_per_second']:,.0f}"])
    for count in ("events_7d", "purchases_90d"):
        ranking = bought.ranking([folder / f"{lake}.{count}.{week}.csv" for week in range(4)])
        cells = [spread(*means([ranking], figure, draws, chance)) for figure in (Ranking.auc, Ranking.average_precision)]
        rows.append([f"`{count}` alone", "", "", *cells] + [""] * 5)
    users = f"{cards[0]['users_train']:,.0f} histories learnt from; {len(draws[0]):,} users scored"
    asked = f"{len(rankings[0].hits):,} weeks of buyers; trainings of each: {len(paths)}"
    return f"**{lake}**: {users}, {asked}.\n\n" + table(
        ["backbone", "head", "loss", "AUC of purchase", "AP of purchase", "log loss", "all six right", "parameters",
         "seconds of training", "users scored a second"], rows)

def demand(lake, _):
    rows = []
    for network in forecasters:
        cards = list(map(figures, sorted((folder / "demand").glob(f"{lake}.{network}.*.json"))))
        def all_of(figure, form):
            """The mean over trainings, and what they range over."""
            values = [f[figure] for f in cards]
            return f"{mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"
        rows.append([network, all_of("pinball_test", ".4f"), f"{cards[0]['pinball_test_seasonal_naive']:.4f}",
                     all_of("coverage_test_q90", ".3f"), all_of("uncorrected_to_sold_test", ".2f"), all_of("forecast_to_sold_test", ".2f"),
                     f"{cards[0]['parameters_demand']:,.0f}", f"{min(f['train_seconds_demand'] for f in cards):.0f}"])
    return f"**{lake}**, trainings of each: {len(cards)}, with what they range over.\n\n" + table(
        ["network", "pinball", "seasonal naive", "days at or below q90", "means to sales", "corrected", "parameters", "seconds of training"],
        rows)

for name, of in [("sequences", sequences), ("demand", demand)]:
    text = "\n\n".join(of(lake, end) for lake, end in lakes)
    print(text + "\n")
    fill(docs / f"{name}.md", "compare_networks", text)
EOF_PYTHON
