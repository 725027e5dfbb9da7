#!/bin/sh
# Imports samples of the public data sets, counts what came out and plans a night of each; with `nights`, also trains on an
# event set and an order-line set and runs their nights. DIR holds one folder a set, files as published or packed.
# usage: real_sets.sh DIR [nights]     INTENTCAST names the binary, WORK a folder to keep lakes in.
set -eu
data=${1:?usage: real_sets.sh DIR [nights]}
job=${INTENTCAST:-target/debug/intentcast}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"

ask() { # LAKE QUERY: one row, fields split by blanks
    # Neither a pipe nor a command before the last: both would hide a failure, the latter where sh is bash.
    "$job" sql --lake "$work/$1" --output "$work/$1.out" --format csv -c "$2" >"$work/answer" 2>>"$work/log" &&
        tail -n 1 "$work/answer" | tr , ' '
}

# Quarantined counts the rows that a night would quarantine, from the kept rollups.
COUNTS="SELECT count(*) AS events, count(DISTINCT item_id) AS items, count(DISTINCT user_id) AS users,
    (SELECT count(*) FROM unit_quarantine) AS quarantined FROM events"

set_of() { # LABEL NAME NIGHT FILES…
    label=$1 name=$2 night=$3
    shift 3
    rm -rf "${work:?}/$label" "${work:?}/$label.out"
    began=$(date +%s)
    "$job" import "$name" "$@" --to "$work/$label" >"$work/$label.txt" 2>>"$work/log" || { tail -n 3 "$work/log"; exit 1; }
    imported=$(date +%s)
    rows=$(sed -n 's/^\([0-9]*\) rows read.*/\1/p' "$work/$label.txt")
    # The lake says what it is: no settings but where it lies.
    counts=$(ask "$label" "$COUNTS") || { tail -n 3 "$work/log"; exit 1; }
    "$job" nightly --lake "$work/$label" --output "$work/$label.out" --date "$night" --dry-run >"$work/$label.plan" 2>>"$work/log"
    # shellcheck disable=SC2086 # fields are meant to split
    printf '%-22s %8s %8s %7s %7s %11s %9s %8s  %s\n' "$label" "$rows" $counts \
        $((imported - began)) $(($(date +%s) - imported)) "$(sed -n 's/^left out: /left out: /p' "$work/$label.txt" | paste -sd';' -)"
}

printf '%-22s %8s %8s %7s %7s %11s %9s %8s\n' set rows events items users quarantined import_s night_s
set_of taobao taobao 2017-12-02 "$data"/taobao-user-behavior/UserBehavior.csv*
set_of taobao-one-day taobao 2017-11-27 "$data"/taobao-one-day/*.csv*
set_of tmall tmall 2014-07-16 "$data"/tmall-brands/*.csv*
set_of rees46 rees46 2019-10-02 "$data"/rees46-multi-category/*.csv*
set_of retailrocket retailrocket 2015-09-19 "$data"/retailrocket-sample/*.csv*
set_of online-retail-ii online-retail-ii 2010-12-10 "$data"/online-retail-ii/*.csv*
set_of complete-journey complete-journey 2017-10-01 "$data"/complete-journey/products.csv* "$data"/complete-journey/transactions*
set_of cdnow cdnow 1997-10-01 "$data"/cdnow/CDNOW_master*
set_of cdnow-sample cdnow 1998-07-01 "$data"/cdnow/CDNOW_sample*
set_of amazon-all-beauty amazon-all-beauty 2018-08-24 "$data"/amazon-all-beauty-5core/*.json*
echo "lakes, plans and log: $work"

[ "${2:-}" = nights ] || exit 0
# A model that trains in minutes on a debug build; leave the --set out for a real one.
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
