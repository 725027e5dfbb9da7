#!/usr/bin/env bash
# On a machine with a GPU: the same binary finds it, and a night scored on it equals the night scored on the CPU.
# Usage: benches/gpu/smoke.sh [PATH_OF_INTENTCAST] (the release build where left out). Ends with one line of differences;
# exits 1 where a figure is further off than 1e-4 relative to the larger of 1 and the CPU's figure.
set -euo pipefail
cd "$(dirname "$0")/../.."
job=${1:-${CARGO_TARGET_DIR:-target}/release/intentcast}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tolerance=1e-4

"$job" doctor --set score.device=cuda

"$job" simulate --to "$work/lake" --users 2000 --items 60 --days 120 --seed 7
"$job" train --set score.device=cpu --set train.epochs_max=3 --lake "$work/lake" --output "$work/cpu" --date 2026-04-25
cp -r "$work/cpu" "$work/cuda"

for device in cpu cuda; do
  start=$(date +%s.%N)
  "$job" nightly --set score.device=$device --lake "$work/lake" --output "$work/$device" --date 2026-04-26 > "$work/$device.log"
  echo "night on $device: $(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }') s"
  show() { "$job" sql --output "$work/$device" --format csv -c "$1" > "$work/$device.$2.csv"; }
  show "SELECT user_id, p_view, p_cart, p_purchase, p_churn, expected_units, expected_spend FROM intent ORDER BY user_id" intent
  show "SELECT item_id, target_date, mean, q05, q50, q95 FROM demand ORDER BY item_id, target_date" demand
done

status=0
for table in intent demand; do
  # Keys must be equal, numbers near.
  paste -d, "$work/cpu.$table.csv" "$work/cuda.$table.csv" | awk -F, -v table=$table -v tolerance=$tolerance '
    function size(x) { return x < 0 ? -x : x }
    NR == 1 { width = NF / 2; next }
    {
      for (i = 1; i <= width; i++) {
        a = $i; b = $(i + width)
        if (a + 0 == a && b + 0 == b) {
          off = size(a - b) / (size(a) > 1 ? size(a) : 1)
          if (off > worst) worst = off
        } else if (a != b) { print table ": row " NR " has " a " on the CPU and " b " on the GPU"; wrong = 1; exit 1 }
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
