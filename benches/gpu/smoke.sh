#!/usr/bin/env bash
# Checks, on a machine with a GPU, that the binary finds the GPU and that a night scored on it equals the night scored on the CPU.
# Usage: benches/gpu/smoke.sh [PATH_OF_INTENTCAST] (default: the release build). Prints the largest difference for each table, and
# exits 1 if a figure differs by more than 1e-4 relative to the larger of 1 and the CPU's figure.
# TRAIN_DEVICE (cpu) is the device of the training, SETTINGS ("--set model.backbone=lstm") its settings, USERS (2000) the number of
# users. DEVICES ("cpu cuda") may name the same device twice, to test the script.
set -euo pipefail
cd "$(dirname "$0")/../.."
job=${1:-${CARGO_TARGET_DIR:-target}/release/intentcast}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tolerance=1e-4 settings=${SETTINGS:-}
read -r first second <<< "${DEVICES:-cpu cuda}"

"$job" doctor --set "score.device=$second"

"$job" simulate --to "$work/lake" --users "${USERS:-2000}" --items 60 --days 120 --seed 7
# shellcheck disable=SC2086 # Settings are words.
"$job" train --set "score.device=${TRAIN_DEVICE:-cpu}" --set train.epochs_max=3 $settings --lake "$work/lake" \
  --output "$work/1" --date 2026-04-25
cp -r "$work/1" "$work/2"

run=0
for device in $first $second; do
  run=$((run + 1))
  start=$(date +%s.%N)
  # shellcheck disable=SC2086
  "$job" nightly --set "score.device=$device" $settings --lake "$work/lake" --output "$work/$run" --date 2026-04-26 \
    > "$work/$run.log"
  echo "night on $device: $(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }') s"
  show() { "$job" sql --output "$work/$run" --format csv -c "$1" > "$work/$run.$2.csv"; }
  show "SELECT user_id, p_view, p_cart, p_purchase, p_churn, expected_units, expected_spend FROM intent ORDER BY user_id" intent
  show "SELECT item_id, target_date, mean, q05, q50, q95 FROM demand ORDER BY item_id, target_date" demand
done

status=0
for table in intent demand; do
  # Keys must be equal, numbers close.
  paste -d, "$work/1.$table.csv" "$work/2.$table.csv" | awk -F, -v table=$table -v tolerance=$tolerance '
    function size(x) { return x < 0 ? -x : x }
    NR == 1 { width = NF / 2; next }
    {
      for (i = 1; i <= width; i++) {
        a = $i; b = $(i + width)
        if (a + 0 == a && b + 0 == b) {
          off = size(a - b) / (size(a) > 1 ? size(a) : 1)
          if (off > worst) worst = off
        } else if (a != b) { print table ": row " NR " has " a " on the first device and " b " on the second"; wrong = 1; exit 1 }
      }
    }
    END {
      if (wrong) exit 1
      if (NR < 2) { print table ": no rows"; exit 1 }
      printf "%s: %d rows, largest relative difference %.2e (at most %s)\n", table, NR - 1, worst, tolerance
      exit worst > tolerance
    }' || status=1
done
exit $status
