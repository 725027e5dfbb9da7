#!/bin/sh
# What do the network, the trees and their blend each score? Trains with default settings on real sets and a simulated shop and
# prints the figures of users and dates that training never saw.
# DIR holds one folder per set, with files as published or packed.
# usage: compare_members.sh DIR [SET ...]
# INTENTCAST (target/release/intentcast) is the binary. WORK (a temporary folder) holds the lakes and models.
set -eu
data=${1:?usage: compare_members.sh DIR [SET ...]}
shift
sets=${*:-online-retail-ii tmall complete-journey cdnow simulated}
here=$(dirname "$0")
# shellcheck disable=SC2034 # common.sh reads it
job=${INTENTCAST:-target/release/intentcast}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
# shellcheck source=lab/common.sh
. "$here/common.sh"

train() { # LABEL DATE [SETTING ...]
    label=$1 date=$2
    shift 2
    [ -f "$work/$label.out/models/champion" ] ||
        "$job" "$@" train --lake "$work/$label" --output "$work/$label.out" --date "$date" >"$work/$label.txt" 2>>"$work/$label.log"
    python3 "$here/tabulate_members.py" "$label" "$work/$label.out"
}

echo "| set | intent | users | AUC: network, trees, blend (95 %) | log loss: network, trees, blend, base rate | weight of the network |"
echo "|---|---|---|---|---|---|"
for name in $sets; do
    case $name in
        online-retail-ii) imported "$work/$name" "$name" "$data/$name"/*.csv*; train "$name" 2010-12-10 ;;
        tmall) imported "$work/$name" "$name" "$data"/tmall-brands/*.csv*; train "$name" 2014-07-16 ;;
        complete-journey)
            imported "$work/$name" "$name" "$data/$name"/products.csv* "$data/$name"/transactions*
            train "$name" 2017-10-01 ;;
        cdnow)
            imported "$work/$name" "$name" "$data/$name"/CDNOW_master*
            train "$name" 1997-10-01 --set intents.horizon_days=28 ;;
        simulated) simulated "$work/$name"; train "$name" 2026-05-15 ;;
        *) echo "compare_members.sh: expected a set that the script knows, got $name" >&2; exit 2 ;;
    esac
done
echo "lakes, models and logs: $work" >&2
