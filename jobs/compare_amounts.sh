#!/bin/sh
# Trains the behaviour network with every loss of expected units and spend, on a simulated shop and on a real one; scores all users
# on four later dates, a week apart; and writes how near the amounts came to what each bought within seven days, and how well it
# was told who buys, into docs/models/sequences.md, between its markers. A training whose figures are there already is skipped.
# usage: compare_amounts.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]
# USERS, ITEMS and DAYS (4000, 48, 142) size the simulated lake; SEEDS ("42 43 44") are the trainings of each loss.
# RETAIL_FOLDER: the CSV files of the first year of UCI Online Retail II (also .gz or .zst); without it the simulated lake alone.
set -eu
job=${1:?usage: compare_amounts.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]}
folder=${2:?usage: compare_amounts.sh PATH_OF_INTENTCAST FOLDER [RETAIL_FOLDER] [--set section.key=value ...]}
shift 2
real=
case ${1-} in ''|--set) ;; *) real=$1; shift ;; esac
days=${DAYS:-142}
here=$(dirname "$0")
. "$here/comparing.sh"
mkdir -p "$folder/figures"
simulated "$folder/simulated"
# The day after the last one.
lakes="simulated:$(later 2026-01-01 "$days")"
if [ -n "$real" ]; then
    imported "$folder/online-retail-ii" online-retail-ii "$real"/*.csv*
    lakes="$lakes online-retail-ii:2010-12-10"
fi
# The demand network has nothing to do with it: as small as it gets.
run() { # VERB [OPTION ...]
    verb=$1
    shift
    "$job" "$verb" --lake "$folder/$lake" --output "$folder/$lake.out" --set score.device=cpu --set model.width=32 \
        --set model.layers=1 --set train.batch_rows=64 --set train.epochs_max=5 --set model.content_inputs=false \
        --set demand.content_inputs=false --set demand.width=4 --set demand.horizon_days=7 --set demand.history_days=28 \
        --set demand.as_of_dates=1 --set demand.calibration_dates=1 "$@" </dev/null 2>>"$folder/log"
}

losses="poisson tweedie negative_binomial mse rmse huber mae"
for of in $lakes; do
    lake=${of%%:*} end=${of##*:}
    trained_at=$(later "$end" -28)
    [ -f "$folder/$lake.bought.csv" ] || {
        run sql --date "$end" --format csv -c "
            SELECT user_id, CAST(ts AS DATE) AS day, sum(quantity) AS units, sum(quantity * price) AS spend
            FROM events WHERE event_type = 'purchase' AND quantity > 0 AND user_id IS NOT NULL GROUP BY ALL" >"$folder/$lake.part"
        mv "$folder/$lake.part" "$folder/$lake.bought.csv"
    }
    a_week() { echo "coalesce(features['$1_90d'], 0) * 7.0 / 90 AS $1"; }
    if [ ! -f "$folder/figures/$lake,rate.3.csv" ]; then
        asked_later "$folder/figures/$lake,rate" "$(a_week units), $(a_week spend) FROM model_input" "$trained_at" 7 4
    fi
    for loss in $losses; do
        for seed in ${SEEDS:-42 43 44}; do
            figures="$folder/figures/$lake,$loss,$seed"
            [ -f "$figures.json" ] && continue
            echo "$lake: $loss, seed $seed" >&2
            version=$(trained --date "$trained_at" --set "model.amount_loss=$loss" --set "train.seed=$seed" "$@")
            asked_later "$figures" "s['expected_units'] AS units, s['expected_spend'] AS spend, s['p_purchase'] AS p FROM (
                SELECT user_id, score_intents(features, '$version') AS s FROM model_input)" "$trained_at" 7 4 "$@"
            cp "$folder/$lake.out/models/$version/bundle.json" "$figures.part"
            mv "$figures.part" "$figures.json"
        done
    done
done

PYTHONPATH=$here python3 -B - "$folder" "$here/../docs/models/sequences.md" "$losses" $lakes <<'EOF_PYTHON'
import collections, csv, datetime, json, math, pathlib, random, sys
from documents import fill, table
from ranking import Outcomes, Ranking, fewer, mean, means, spread

folder, doc = map(pathlib.Path, sys.argv[1:3])
losses, lakes = sys.argv[3].split(), [of.split(":") for of in sys.argv[4:]]
DRAWS, AMOUNTS = 200, ("units", "spend")

def outcomes(lake, first):
    """By week and user: units and spend of the seven days."""
    sums = [collections.defaultdict(lambda: [0.0, 0.0]) for _ in range(4)]
    for row in csv.DictReader((folder / f"{lake}.bought.csv").open()):
        week = (datetime.date.fromisoformat(row["day"][:10]) - first).days // 7
        if 0 <= week < 4:
            for at, amount in enumerate(AMOUNTS):
                sums[week][row["user_id"]][at] += float(row[amount] or 0)
    return sums

def errors(stem, actual, at):
    """By user, over the weeks: rows, what came, what was expected, absolute and squared differences."""
    of = collections.defaultdict(lambda: [0.0] * 5)
    for week in range(4):
        for row in csv.DictReader((folder / "figures" / f"{stem}.{week}.csv").open()):
            came, expected = actual[week].get(row["user_id"], (0.0, 0.0))[at], float(row[AMOUNTS[at]])
            gap = expected - came
            for place, value in enumerate((1, came, expected, abs(gap), gap * gap)):
                of[row["user_id"]][place] += value
    return of

def figures(of, weight):
    rows, came, expected, absolute, squared = (sum(weight[user] * sums[k] for user, sums in of.items()) for k in range(5))
    return expected / came, absolute / rows, math.sqrt(squared / rows)

def cells(trainings, draws, chance):
    """Of each figure the mean over the trainings, with the middle 95 % of draws of the users."""
    drawn = [[figures(of, weight) for of in trainings] for weight in draws]
    for k in range(3):
        whole, *parts = [[each[k] for each in of] for of in drawn]
        form = ".2f" if k == 0 or whole[0] >= 1 else ".3f"
        yield spread(mean(whole), [mean(fewer(part, chance)) for part in parts], form)

def compared(lake, end):
    first = datetime.date.fromisoformat(end) - datetime.timedelta(days=28)
    actual, chance, draws = outcomes(lake, first), random.Random(7), None
    bought = Outcomes(folder / f"{lake}.bought.csv", str(first), 7)
    lines, trainings = [], 0
    for loss in losses + ["rate"]:
        cards = sorted((folder / "figures").glob(f"{lake},{loss},*.json"))
        stems = [path.with_suffix("").name for path in cards] or [f"{lake},{loss}"]
        trainings = max(trainings, len(stems))
        row = []
        for at in range(2):
            each = [errors(stem, actual, at) for stem in stems]
            if draws is None:
                users = sorted(each[0])
                samples = [chance.choices(users, k=len(users)) for _ in range(DRAWS)]
                draws = [collections.Counter(of) for of in [users, *samples]]
            row += cells(each, draws, chance)
        if cards:
            rankings = [bought.ranking([path.with_suffix(f".{week}.csv") for week in range(4)]) for path in cards]
            row += [spread(*means(rankings, of, draws, chance)) for of in (Ranking.auc, Ranking.average_precision)]
            found = [json.loads(path.read_text())["figures"] for path in cards]
            row += [f"{found[0]['parameters_intent']:,.0f}", f"{min(of['train_seconds_intent'] for of in found):.0f}",
                    f"{max(of['users_scored_per_second'] for of in found):,.0f}"]
        else:
            row += [""] * 5
        lines.append(["what 90 days had, a week" if loss == "rate" else f"`{loss}`", *row])
    buyers = sum(units > 0 for week in actual for units, _ in week.values())
    head = ["loss"] + [f"{amount}: {figure}" for amount in AMOUNTS for figure in ("expected / came", "MAE", "RMSE")]
    head += ["AUC of purchase", "AP of purchase", "parameters", "seconds of training", "users scored a second"]
    said = f"**{lake}**: {len(draws[0]):,} users, {buyers:,} weeks of buyers; trainings of each: {trainings}."
    return f"{said}\n\n" + table(head, lines)

text = "\n\n".join(compared(lake, end) for lake, end in lakes)
print(text)
fill(doc, "compare_amounts", text)
EOF_PYTHON
