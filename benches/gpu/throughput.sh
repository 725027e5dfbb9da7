#!/usr/bin/env bash
# Measures, on a machine with a GPU, texts, pictures and training samples a second on the CPU and on the GPU. Prints Markdown tables.
# Usage: benches/gpu/throughput.sh PATH_OF_INTENTCAST TEXT_ENCODER IMAGE_ENCODER (a release build; folders as for encoders.sh).
# Each rate comes from two runs, over N and over 3 N values, so that the time to start cancels out.
# TEXTS ("4000 100000") and PICTURES ("500 10000") are N on the first and on the second of DEVICES ("cpu cuda", which may name the
# same device twice, to test the script). BUDGETS ("2048 16384 65536") are values of score.batch_tokens_max on the second.
set -euo pipefail
cd "$(dirname "$0")/../.."
job=${1:?PATH_OF_INTENTCAST} text=${2:?TEXT_ENCODER} image=${3:?IMAGE_ENCODER}
read -r first second <<< "${DEVICES:-cpu cuda}"
read -r texts_first texts_second <<< "${TEXTS:-4000 100000}"
read -r pictures_first pictures_second <<< "${PICTURES:-500 10000}"
work=$(mktemp -d)
trap 'rm -rf "$work"; kill "$(jobs -p)" 2> /dev/null || true' EXIT
picture=$(od -An -v -tx1 tests/fixtures/vision/pictures/photo.jpg | tr -d ' \n')
# Titles of 2 to 21 words and pictures, all different. Bytes after the end of a picture are ignored but make it a different value.
vector_text="embed_text(value || repeat(' warm coat', CAST(value % 11 AS BIGINT)), '$text')"
vector_image="embed_image(decode('$picture' || lpad(to_hex(value), 12, '0'), 'hex'), '$image')"

# Prints the seconds of a query over COUNT values.
seconds() { # VECTOR COUNT SETTING...
  local vector=$1 count=$2 start
  shift 2
  start=$(date +%s.%N)
  "$job" sql --set "functions.folders=$(dirname "$text"),$(dirname "$image")" "${@/#/--set=}" --output "$work/out" --format csv \
    -c "SELECT count(v), sum(v[1]) FROM (SELECT $vector AS v FROM generate_series(1, $count))" > "$work/answer" 2> "$work/log" ||
    { cat "$work/log" >&2; exit 1; }
  sed -n 2p "$work/answer" | grep -q "^$count," || { echo "expected $count vectors, got: $(sed -n 2p "$work/answer")" >&2; exit 1; }
  awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { print b - a }'
}

# shellcheck source=benches/gpu/peak.sh
. benches/gpu/peak.sh

row() { # WHAT VECTOR COUNT DEVICE PRECISION BUDGET
  local settings=("score.device=$4" "score.precision=$5" "score.batch_tokens_max=$6")
  seconds "$2" "$3" "${settings[@]}" > "$work/one"
  peak seconds "$2" $((3 * $3)) "${settings[@]}" > "$work/three"
  awk -v what="$1" -v device="$4" -v precision="$5" -v budget="$6" \
    -v one="$(cat "$work/one")" -v three="$(cat "$work/three")" \
    -v n="$3" -v memory="$(sort -n "$work/memory" | tail -1)" 'BEGIN {
      rate = three > one ? sprintf("%.0f", 2 * n / (three - one)) : "too short to measure"
      if (memory == "") memory = "-"
      printf "| %s | %s | %s | %s | %s | %.1f | %s |\n", what, device, precision, budget, rate, three, memory }'
}

echo "| what | device | precision | tokens a pass | a second | seconds of the longer run | MiB on the GPU |"
echo "|---|---|---|---|---|---|---|"
row texts "$vector_text" "$texts_first" "$first" f32 2048
for precision in f32 bf16; do
  for budget in ${BUDGETS:-2048 16384 65536}; do
    row texts "$vector_text" "$texts_second" "$second" $precision "$budget"
  done
done
row pictures "$vector_image" "$pictures_first" "$first" f32 2048
for precision in f32 bf16; do row pictures "$vector_image" "$pictures_second" "$second" $precision 2048; done

# Training: the log line of the second epoch of each network.
shop="$work/shop"
printf '\n| what | device | samples a second | waiting for batches |\n|---|---|---|---|\n'
"$job" simulate --to "$shop" --users "${USERS:-4000}" --items 300 --days 120 --seed 3 > "$work/log"
for settings in model.width=64 "model.width=256 model.layers=4 model.heads=8" "model.width=64 model.backbone=gru"; do
  for device in $first $second; do
    # shellcheck disable=SC2086 # Settings are words.
    "$job" train --set "score.device=$device" $(printf -- '--set %s ' $settings) --set train.epochs_max=2 \
      --set train.batch_rows=1024 --lake "$shop" --output "$work/nights-$device" --date 2026-04-25 \
      > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    for network in intents demand; do
      sed -nE "s|.* $network: epoch 2: .*samples_per_second ([0-9.]+), waiting_share ([0-9.]+).*|\\1 \\2|p" "$work/log" |
        awk -v of="$network" -v settings="$settings" -v device="$device" \
          '{ printf "| training of %s, %s | %s | %.0f | %.1f %% |\n", of, settings, device, $1, 100 * $2 }'
    done
  done
done
