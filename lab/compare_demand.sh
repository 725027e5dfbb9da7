#!/bin/sh
# Do trees next to the network forecast demand better? Trains models that differ in one setting on the same date, and compares their
# forecasts of eight later weeks with the sales of the four weeks after each.
# The behaviour network does not matter here, so it is small. DIR holds one folder per set, with files as published or packed.
# usage: compare_demand.sh DIR [SECTION.KEY=VALUE ...]; without settings: demand.trees=true, demand.trees=false
# INTENTCAST (target/release/intentcast) is the binary. BEFORE is another one, whose models are compared too (they must be of a format
# that the first reads). WORK (a temporary folder) holds the lakes and models.
set -eu
data=${1:?usage: compare_demand.sh DIR [SECTION.KEY=VALUE ...]}
shift
settings=${*:-demand.trees=true demand.trees=false}
here=$(dirname "$0")
# shellcheck disable=SC2034 # common.sh reads it
job=${INTENTCAST:-target/release/intentcast}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
# shellcheck source=lab/common.sh
. "$here/common.sh"

model() { # BINARY LAKE DATE NAME SETTING
    output=$work/$2-$3-$4
    [ -f "$output/models/champion" ] ||
        "$1" --set model.width=16 --set model.layers=1 --set train.as_of_dates=2 --set "$5" train --lake "$work/$2" \
            --output "$output" --date "$3" >"$output.txt" 2>"$output.log"
    "$job" evaluate --lake "$work/$2" --output "$output" --backfill "$3..$(later "$3" 49)" --step-days 7 --task demand \
        --format json >"$output.json" 2>>"$output.log"
    python3 "$here/tabulate_demand.py" "$2, $3" "$4" "$output.json"
}

compare() { # LAKE DATE
    for setting in $settings; do model "$job" "$1" "$2" "$setting" "$setting"; done
    if [ -n "${BEFORE:-}" ]; then model "$BEFORE" "$1" "$2" before demand.network=gru; fi
}

echo "| set, trained on | model | items | pinball | seasonal naive | bias | days at most q90 | lead times at most q90 |"
echo "|---|---|---|---|---|---|---|---|"
imported "$work/online-retail-ii" online-retail-ii "$data/online-retail-ii"/*.csv*
imported "$work/complete-journey" complete-journey "$data/complete-journey"/products.csv* "$data/complete-journey"/transactions*
for date in ${RETAIL_DATES:-2010-08-05 2010-09-23}; do compare online-retail-ii "$date"; done
for date in ${JOURNEY_DATES:-2017-07-08}; do compare complete-journey "$date"; done
if [ -n "${SIMULATED:-}" ]; then
    USERS=4000 ITEMS=400 DAYS=300 simulated "$work/simulated"
    compare simulated 2026-08-10
fi
echo "lakes, models and logs: $work" >&2
