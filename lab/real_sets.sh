#!/bin/sh
# Do the importers and nights handle the public data sets? Imports a sample of each set, counts the rows and plans a night. With
# `nights`, also trains on an event set and on an order-line set and runs a night of each.
# DIR holds one folder per set, with files as published or packed.
# usage: real_sets.sh DIR [nights]
# INTENTCAST (target/debug/intentcast) is the binary. WORK (a temporary folder) holds the lakes.
set -eu
data=${1:?usage: real_sets.sh DIR [nights]}
job=${INTENTCAST:-target/debug/intentcast}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"

ask() { # LAKE QUERY: prints one row, with fields separated by spaces
    # A pipe would hide a failure of intentcast, so the answer goes through a file.
    "$job" sql --lake "$work/$1" --output "$work/$1.out" --format csv -c "$2" >"$work/answer" 2>>"$work/log" &&
        tail -n 1 "$work/answer" | tr , ' '
}

# `quarantined` counts the rows that a night would quarantine, from the rollups.
COUNTS="SELECT count(*) AS events, count(DISTINCT item_id) AS items, count(DISTINCT user_id) AS users,
    (SELECT count(*) FROM unit_quarantine) AS quarantined FROM events"

import_set() { # LABEL NAME NIGHT FILES…
    label=$1 name=$2 night=$3
    shift 3
    rm -rf "${work:?}/$label" "${work:?}/$label.out"
    began=$(date +%s)
    "$job" import "$name" "$@" --to "$work/$label" >"$work/$label.txt" 2>>"$work/log" || { tail -n 3 "$work/log"; exit 1; }
    imported=$(date +%s)
    rows=$(sed -n 's/^\([0-9]*\) rows read.*/\1/p' "$work/$label.txt")
    # lake.toml holds the settings of the lake, so only its location is given here.
    counts=$(ask "$label" "$COUNTS") || { tail -n 3 "$work/log"; exit 1; }
    "$job" nightly --lake "$work/$label" --output "$work/$label.out" --date "$night" --dry-run >"$work/$label.plan" 2>>"$work/log"
    # shellcheck disable=SC2086 # fields are meant to split
    printf '%-22s %8s %8s %7s %7s %11s %9s %8s  %s\n' "$label" "$rows" $counts \
        $((imported - began)) $(($(date +%s) - imported)) "$(grep -E '^(left out|skipped): ' "$work/$label.txt" | paste -sd';' -)"
}

printf '%-22s %8s %8s %7s %7s %11s %9s %8s\n' set rows events items users quarantined import_s night_s
import_set taobao taobao 2017-12-02 "$data"/taobao-user-behavior/UserBehavior.csv*
import_set taobao-one-day taobao 2017-11-27 "$data"/taobao-one-day/*.csv*
import_set tmall tmall 2014-07-16 "$data"/tmall-brands/*.csv*
import_set rees46 rees46 2019-10-02 "$data"/rees46-multi-category/*.csv*
import_set retailrocket retailrocket 2015-09-19 "$data"/retailrocket-sample/*.csv*
import_set online-retail-ii online-retail-ii 2010-12-10 "$data"/online-retail-ii/*.csv*
import_set complete-journey complete-journey 2017-10-01 "$data"/complete-journey/products.csv* "$data"/complete-journey/transactions*
import_set cdnow cdnow 1997-10-01 "$data"/cdnow/CDNOW_master*
import_set cdnow-sample cdnow 1998-07-01 "$data"/cdnow/CDNOW_sample*
import_set amazon-all-beauty amazon-all-beauty 2018-08-24 "$data"/amazon-all-beauty-5core/*.json*
echo "lakes, plans and log: $work"

[ "${2:-}" = nights ] || exit 0
# These settings train in minutes on a debug build. Remove them for a real model.
night_of() { # LABEL DATE
    set -- "$1" "$2" --set model.width=32 --set model.layers=1 --set train.epochs_max=4
    label=$1 night=$2
    shift 2
    for verb in train nightly; do
        began=$(date +%s)
        echo "\$ intentcast $* $verb --lake $label --output $label.out --date $night"
        "$job" "$@" "$verb" --lake "$work/$label" --output "$work/$label.out" --date "$night" 2>>"$work/log"
        echo "$verb of $label: $(($(date +%s) - began)) s"
    done
}
night_of tmall 2014-07-16
night_of online-retail-ii 2010-12-10
