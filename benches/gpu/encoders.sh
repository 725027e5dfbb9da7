#!/usr/bin/env bash
# Checks, on a machine with a GPU, that text and image encoders give the same vectors as on the CPU, and measures time and memory.
# Usage: benches/gpu/encoders.sh PATH_OF_INTENTCAST TEXT_ENCODER IMAGE_ENCODER [REVIEWS.csv]
# The encoders are folders (docs/models/language.md, docs/models/vision.md); benches/gpu/random_resnet.py makes one of random
# weights. With REVIEWS.csv, a table of the columns review and recommended, it also fine-tunes a classifier on both devices. TEXTS
# (20000) and PICTURES (2000) are the numbers of inputs. Exits 1 if a float32 number differs by more than 1e-4. It prints how far
# bfloat16 differs from the first device's float32, and the AUC of purchases with each, for a simulated shop of USERS (3000) whose
# taste shows in titles: trained once, scored a week later. DEVICES ("cpu cuda") may name the same device twice, to test the script.
set -euo pipefail
cd "$(dirname "$0")/../.."
job=${1:?PATH_OF_INTENTCAST} text=${2:?TEXT_ENCODER} image=${3:?IMAGE_ENCODER} reviews=${4:-}
read -r first second <<< "${DEVICES:-cpu cuda}"
work=$(mktemp -d)
trap 'rm -rf "$work"; kill "$(jobs -p)" 2> /dev/null || true' EXIT
tolerance=1e-4

# shellcheck source=benches/gpu/peak.sh
. benches/gpu/peak.sh

# Runs a query on a device in a precision, and prints the seconds and the GPU's memory.
encode() { # NAME DEVICE QUERY WHAT PRECISION
  local start
  start=$(date +%s.%N)
  peak "$job" sql --set "functions.folders=$(dirname "$text"),$(dirname "$image")" --set "score.device=$2" \
    --set "score.precision=$5" --output "$work/out" --format csv -c "$3" > "$work/$1.csv" 2> "$work/$1.log" ||
    { cat "$work/$1.log"; exit 1; }
  echo "$1 on $2, $5: $4 in $(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }') s including the start," \
    "$(sort -n "$work/memory" | tail -1 | grep . || echo no) MiB on the GPU"
}

# Compares the vectors of run 1 with those of another run.
compare() { # KIND RUN TOLERANCE
  paste -d, "$work/$1-1.csv" "$work/$1-$2.csv" | awk -F, -v of="$1, run 1 and $2" -v tolerance="$3" '
    function size(x) { return x < 0 ? -x : x }
    NR == 1 { next }
    { n = split($1, a, " "); split($2, b, " "); for (i = 1; i <= n; i++) { off = size(a[i] - b[i]); if (off > worst) worst = off } }
    END {
      if (NR < 2 || n < 2) { print of ": no vectors"; exit 1 }
      printf "%s: %d vectors of %d numbers, largest difference %.2e (%s)\n", of, NR - 1, n, worst, \
        tolerance == "" ? "bfloat16" : "at most " tolerance
      exit tolerance != "" && worst > tolerance
    }'
}

texts=${TEXTS:-20000} pictures=${PICTURES:-2000}
words="'a warm woollen coat with deep pockets ' || repeat('and a lining ', CAST(value % 20 AS BIGINT)) || value"
as_text="array_to_string(embed_text($words, '$text'), ' ')"
query_text="SELECT $as_text AS vector FROM generate_series(1, $texts) ORDER BY value"
cases="" turn=0
for picture in photo.jpg rgba.png lossy.webp rgb16.png; do
  bytes=$(od -An -v -tx1 "tests/fixtures/vision/pictures/$picture" | tr -d ' \n')
  cases="$cases WHEN $turn THEN X'$bytes'" turn=$((turn + 1))
done
as_image="array_to_string(embed_image(CASE value % 4 $cases END, '$image'), ' ')"
query_image="SELECT $as_image AS vector FROM generate_series(1, $pictures) ORDER BY value"
status=0 run=0
for on in "$first f32" "$second f32" "$second bf16"; do
  run=$((run + 1))
  read -r device precision <<< "$on"
  encode "text-$run" "$device" "$query_text" "$texts texts" "$precision"
  encode "image-$run" "$device" "$query_image" "$pictures pictures" "$precision"
  if [ -n "$reviews" ] && [ "$precision" = f32 ]; then
    echo "fine-tuning on $device:"
    start=$(date +%s.%N)
    peak "$job" train --set "score.device=$device" --task text --table "$reviews" --text-column review --label recommended \
      --encoder "$text" --output "$work/out-$run" 2> "$work/train.log" || { cat "$work/train.log"; exit 1; }
    awk -v a="$start" -v b="$(date +%s.%N)" -v m="$(sort -n "$work/memory" | tail -1)" \
      'BEGIN { printf "%.1f s, %d MiB on the GPU\n", b - a, m }'
  fi
done
compare text 2 $tolerance || status=1
compare image 2 $tolerance || status=1
compare text 3 "" || status=1
compare image 3 "" || status=1

# The question of a night: who buys within the seven days after the training?
shop="$work/shop" date=2026-03-25 end=2026-04-01
small="--set model.text_encoder=$text --set model.width=32 --set model.layers=1 --set train.as_of_dates=3 --set demand.width=4
  --set demand.horizon_days=7 --set demand.history_days=28"
"$job" simulate --to "$shop" --users "${USERS:-3000}" --items 300 --days 90 --seed 11 --signal text > "$work/shop.log"
# shellcheck disable=SC2086 # Settings are words.
"$job" $small --set "score.device=$first" train --lake "$shop" --output "$work/nights" --date $date > "$work/train.log" 2>&1 ||
  { cat "$work/train.log"; exit 1; }
"$job" sql --lake "$shop" --output "$work/nights" --date $end --format csv -c \
  "SELECT DISTINCT user_id FROM events WHERE event_type = 'purchase' AND ts >= '$date'" > "$work/bought.csv" 2> "$work/sql.log"
for on in "$first f32" "$second f32" "$second bf16"; do
  read -r device precision <<< "$on"
  # shellcheck disable=SC2086
  "$job" $small --set "score.device=$device" --set "score.precision=$precision" sql --lake "$shop" --output "$work/nights" \
    --date $date --format csv -c "SELECT user_id, score_intents(features)['p_purchase'] AS p FROM model_input" \
    > "$work/scores.csv" 2> "$work/sql.log" || { cat "$work/sql.log"; exit 1; }
  awk -F, -v on="$device, $precision" '
    FNR == 1 { next }
    NR == FNR { bought[$1]; next }
    { score[++n] = $2; hit[n] = $1 in bought; positives += hit[n] }
    END {
      for (i = 1; i <= n; i++) if (hit[i]) for (j = 1; j <= n; j++) if (!hit[j]) won += (score[i] > score[j]) + (score[i] == score[j]) / 2
      if (!positives || positives == n) { print "expected buyers and other users, got only one kind"; exit 1 }
      printf "AUC of purchases on %s: %.5f, %d users, %d of them buyers\n", on, won / positives / (n - positives), n, positives
    }' "$work/bought.csv" "$work/scores.csv" || status=1
done
exit $status
