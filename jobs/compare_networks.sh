#!/bin/sh
# Trains every backbone, head and loss on a simulated lake and on a real one, scores all users on four later dates, a week apart,
# and writes how well that told who bought within seven days, who left, and what they met next; trains every demand network, too,
# on the simulated lake and on another real one; and fills the tables of docs/models/ between their markers. A training whose
# figures are there already is skipped, and an answer of a model, too, so an interrupted run goes on.
# usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV [RETAIL_FOLDER]] [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the simulated lake; SEEDS ("42 43 44") are the trainings of each network;
# the first of them alone those of the demand networks on the real lake.
# TMALL_CSV: t_alibaba_data.csv of the Alibaba competition of 2014 (also .gz or .zst), for the networks of behaviour.
# RETAIL_FOLDER: the CSV files of the first year of UCI Online Retail II (also .gz or .zst), for those of demand: of tmall's items
# so few sell that a forecast of nothing is as good as any. Without them the simulated lake alone.
set -eu
usage='usage: compare_networks.sh PATH_OF_INTENTCAST FOLDER [TMALL_CSV [RETAIL_FOLDER]] [--set section.key=value ...]'
job=${1:?$usage}
folder=${2:?$usage}
shift 2
real= retail=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
case ${1-} in ''|--set) ;; *) retail=$1; shift ;; esac
days=${DAYS:-142} seeds=${SEEDS:-42 43 44}
here=$(dirname "$0")
. "$here/comparing.sh"
mkdir -p "$folder/intents" "$folder/demand"

simulated "$folder/simulated"
# The day after the last one: what happened until then is all there is to learn from.
lakes="simulated:$(later 2026-01-01 "$days")"
# Those of the demand networks.
shops=$lakes
if [ -n "$real" ]; then
    imported "$folder/tmall" tmall "$real"
    lakes="$lakes tmall:2014-07-16"
fi
if [ -n "$retail" ]; then
    imported "$folder/online-retail-ii" online-retail-ii "$retail"/*.csv*
    shops="$shops online-retail-ii:2010-12-10"
fi

run() { # VERB [OPTION ...]
    verb=$1
    shift
    # The real lakes do not know when their events arrived.
    [ "$lake" = simulated ] && arrival=column || arrival=none
    "$job" "$verb" --lake "$folder/$lake" --output "$folder/$lake.out" --set "lake.arrival=$arrival" \
        --set model.content_inputs=false --set demand.content_inputs=false --set score.device=cpu "$@" </dev/null 2>>"$folder/log"
}
train() { # CARD [OPTION ...]
    card=$1
    shift
    version=$(trained "$@")
    cp "$folder/$lake.out/models/$version/bundle.json" "$card.part"
}
answered() { # ANSWERS COLUMNS_AND_SOURCE [OPTION ...]: what there is to say of each user on the day of the training, if not kept
    answers=$1 columns=$2
    shift 2
    [ -f "$answers.csv" ] && return
    asked_later "$answers.part" "$columns" "$asked_from" 1 1 "$@"
    mv "$answers.part.0.csv" "$answers.csv"
}
kept() { # FILE DAY QUERY
    [ -f "$1" ] && return
    run sql --date "$2" --format csv -c "$3" >"$1.part"
    mv "$1.part" "$1"
}

# backbone head loss [class weights]
networks="transformer sigmoid bce
causal sigmoid bce
lstm sigmoid bce
gru sigmoid bce
rnn sigmoid bce
transformer sigmoid bce balanced
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
    kept "$folder/$lake.came.csv" "$end" "SELECT DISTINCT user_id FROM events WHERE ts >= TIMESTAMP '$asked_from'"
    kept "$folder/$lake.met.csv" "$(later "$asked_from" 7)" "SELECT DISTINCT user_id, item_id FROM events
        WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND ts >= TIMESTAMP '$asked_from'"
    kept "$folder/$lake.popular.csv" "$asked_from" "SELECT item_id FROM events
        WHERE item_id IS NOT NULL AND ts >= TIMESTAMP '$(later "$asked_from" -28)'
        GROUP BY item_id ORDER BY count(*) DESC, item_id LIMIT 5"
    for seed in $seeds; do
        echo "$networks" | while read -r backbone head loss weights; do
            to="$folder/intents/$lake.$backbone.$head.$loss${weights:+-$weights}.$seed"
            [ -f "$to.json" ] && continue
            echo "$lake: $backbone, $head, $loss${weights:+, $weights}, seed $seed" >&2
            # The demand network has nothing to do with it: as small as it gets.
            train "$to" --date "$asked_from" --set "model.backbone=$backbone" --set "model.head=$head" \
                --set "model.loss=$loss" --set "model.class_weights=${weights:-none}" --set "train.seed=$seed" \
                --set demand.width=4 --set demand.horizon_days=7 --set demand.history_days=28 \
                --set demand.as_of_dates=1 --set demand.calibration_dates=1 "$@"
            scored_later "$to" "$version" "$asked_from" 7 4 "$@"
            mv "$to.part" "$to.json"
        done
    done
    for card in "$folder/intents/$lake".*.json; do
        version=$(sed -n 's/.*"version": *"\([^"]*\)".*/\1/p' "$card" | head -n 1)
        answered "${card%.json}.churn" "score_intents(features, '$version')['p_churn'] AS p FROM model_input" "$@"
        answered "${card%.json}.items" "pick['item_id'] AS item_id FROM (
            SELECT user_id, unnest(recommend(score_intents(features, '$version')['taste'], NULL, 5, '$version')) AS pick
            FROM model_input)" "$@"
    done
done
for of in $shops; do
    lake=${of%%:*} end=${of##*:}
    # On the real lake a training takes minutes: one of each network.
    [ "$lake" = simulated ] && drawn=$seeds || drawn=${seeds%% *}
    for seed in $drawn; do
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

PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models" "$networks" "$forecasters" "$lakes" "$shops" <<'EOF_PYTHON'
import csv, datetime, json, pathlib, random, sys
from documents import fill, table
from ranking import Outcomes, Ranking, drawn, mean, means, spread

folder, docs = map(pathlib.Path, sys.argv[1:3])
networks = [network.split() for network in sys.argv[3].splitlines()]
forecasters = sys.argv[4].split()
lakes, shops = ([lake.split(":") for lake in of.split()] for of in sys.argv[5:])
DRAWS = 200

def figures(path):
    return json.loads(path.read_text())["figures"]

def rows_of(path):
    return csv.DictReader(path.open())

class Recall:
    """What share of the items that users met was among those that were recommended to them."""

    def __init__(self, met, recommended):
        """`met`: of users, sets of items; `recommended`: a function of the user that gives such a set."""
        self.of = [(user, len(items), len(items & recommended(user))) for user, items in met.items()]

    def share(self, weight):
        return sum(weight[user] * found for user, _, found in self.of) / sum(weight[user] * met for user, met, _ in self.of)

def recommended(path):
    of = {}
    for row in rows_of(path):
        of.setdefault(row["user_id"], set()).add(row["item_id"])
    return lambda user: of.get(user, set())

def sequences(lake, end):
    first = datetime.date.fromisoformat(end) - datetime.timedelta(days=28)
    bought, chance, draws, rows = Outcomes(folder / f"{lake}.bought.csv", str(first), 7), random.Random(7), None, []
    # On the first date: how much each user did of late, who came again, and what each met.
    recent = {row["user_id"]: float(row["p"]) for row in rows_of(folder / f"{lake}.events_7d.0.csv")}
    came = {row["user_id"] for row in rows_of(folder / f"{lake}.came.csv")}
    left = lambda scores: Ranking((score, user, user not in came) for user, score in scores)
    met = {}
    for row in rows_of(folder / f"{lake}.met.csv"):
        if row["user_id"] in recent:
            met.setdefault(row["user_id"], set()).add(row["item_id"])
    popular = {row["item_id"] for row in rows_of(folder / f"{lake}.popular.csv")}
    FIGURES = (Ranking.auc, Ranking.average_precision)
    of_users = lambda rankings: [spread(*means(rankings, figure, draws, chance)) for figure in FIGURES]
    of_items = lambda recalls: spread(*means(recalls, Recall.share, draws, chance))
    further = []
    for network in networks:
        backbone, head, loss, *weights = network
        paths = sorted((folder / "intents").glob(".".join([lake, backbone, head, "-".join([loss, *weights]), "*", "json"])))
        if not paths:
            continue
        rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(4)]) for path in paths]
        # The same users drawn for all networks; times are those of the first seed, measured in one go.
        draws = draws or drawn(rankings, chance, DRAWS)
        cards = list(map(figures, paths))
        names = [backbone, head, loss + ", class weights" * bool(weights)]
        rows.append([*names, *of_users(rankings), f"{mean([of.log_loss() for of in rankings]):.4f}",
                     f"{mean([f['intents_decoded_whole_test'] for f in cards]):.3f}", f"{cards[0]['parameters_intent']:,.0f}",
                     f"{cards[0]['train_seconds_intent']:.0f}", f"{cards[0]['users_scored_per_second']:,.0f}"])
        churn = [left((row["user_id"], float(row["p"])) for row in rows_of(path.with_suffix(".churn.csv"))) for path in paths]
        items = [Recall(met, recommended(path.with_suffix(".items.csv"))) for path in paths]
        further.append([*names, *of_users(churn), of_items(items)])
    for count in ("events_7d", "purchases_90d"):
        ranking = bought.ranking([folder / f"{lake}.{count}.{week}.csv" for week in range(4)])
        rows.append([f"`{count}` alone", "", "", *of_users([ranking])] + [""] * 5)
    quiet = left((user, -events) for user, events in recent.items())
    further.append(["fewest `events_7d`", "", "", *of_users([quiet]), ""])
    further.append(["five most met items", "", "", "", "", of_items([Recall(met, lambda _: popular)])])
    users = f"{cards[0]['users_train']:,.0f} histories learnt from; {len(draws[0]):,} users scored"
    asked = f"{len(rankings[0].hits):,} weeks of buyers; trainings of each: {len(paths)}"
    pairs = sum(map(len, met.values()))
    later = f"{len(quiet.hits):,} of {len(recent):,} users did nothing in 28 days; {len(met):,} met {pairs:,} items in seven"
    return f"**{lake}**: {users}, {asked}.\n\n" + table(
        ["backbone", "head", "loss", "AUC of purchase", "AP of purchase", "log loss", "all six right", "parameters",
         "seconds of training", "users scored a second"], rows) + (
        f"\n\n**{lake}**, scores of {first}: {later}.\n\n") + table(
        ["backbone", "head", "loss", "AUC of churn", "AP of churn", "recall of the items met next, five recommended"], further)

def demand(lake, _):
    rows = []
    for network in forecasters:
        cards = list(map(figures, sorted((folder / "demand").glob(f"{lake}.{network}.*.json"))))
        of = cards[0]
        digits = ".4f" if of["pinball_test_zero"] < 1 else ".3f"
        def all_of(figure, form):
            """The mean over trainings, and what they range over."""
            values = [f[figure] for f in cards]
            ranged = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
            return f"{mean(values):{form}}{ranged}"
        drawn_items = "{:{d}} ({:{d}} to {:{d}})".format(*(of[f"pinball_test{end}"] for end in ("", "_low", "_high")), d=digits)
        baselines = [f"{of[f'pinball_test_{name}']:{digits}}" for name in ("seasonal_naive", "zero")]
        rows.append([network, all_of("pinball_test", digits), drawn_items, *baselines, all_of("coverage_test_q90", ".3f"),
                     all_of("uncorrected_to_sold_test", ".2f"), all_of("forecast_to_sold_test", ".2f"),
                     f"{of['parameters_demand']:,.0f}", f"{min(f['train_seconds_demand'] for f in cards):.0f}",
                     f"{max(f['items_forecast_per_second'] for f in cards):,.0f}"])
    items = sum(value for name, value in of.items() if name.startswith("items_test_"))
    trainings = f"trainings of each: {len(cards)}" + ", with what they range over" * (len(cards) > 1)
    return f"**{lake}**, {items:,.0f} items; {trainings}.\n\n" + table(
        ["network", "pinball", "first training (95 % of draws of items)", "seasonal naive", "nothing sells", "days at or below q90",
         "means to sales", "corrected", "parameters", "seconds of training", "item forecasts a second"], rows)

for name, of, asked in [("sequences", sequences, lakes), ("demand", demand, shops)]:
    text = "\n\n".join(of(lake, end) for lake, end in asked)
    print(text + "\n")
    fill(docs / f"{name}.md", "compare_networks", text)
EOF_PYTHON
