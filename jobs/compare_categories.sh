#!/bin/sh
# Learns the category of a product from its title, from its picture and from both by `train --task table`, and from its picture
# by `train --task image`, beside scikit-learn's logistic regression on the same vectors and on TF-IDF of titles, and writes the
# table of docs/models/fusion.md between its markers. What is in FOLDER already is kept: an interrupted run goes on.
# usage: compare_categories.sh PATH_OF_INTENTCAST FOLDER FASHION_FOLDER TEXT_ENCODER [IMAGE_ENCODER ...]
# FASHION_FOLDER has styles.csv (or styles.csv.zst) and images/ID.jpg; TEXT_ENCODER is a Hugging Face folder. Without an
# IMAGE_ENCODER a small network is used whose weights are random. An encoder that was taught on these very products has seen
# the rows that it is tested on: its figures mean nothing. REPEATS (3) is how often the products are cut into ten folds.
# PYTHON (FOLDER/venv/bin/python) has numpy, scikit-learn and safetensors.
set -eu
usage='usage: compare_categories.sh PATH_OF_INTENTCAST FOLDER FASHION_FOLDER TEXT_ENCODER [IMAGE_ENCODER ...]'
job=${1:?$usage}
folder=${2:?$usage}
fashion=${3:?$usage}
text=${4:?$usage}
shift 4
mkdir -p "$folder"
[ -f "$folder/styles.csv" ] || {
    if [ -f "$fashion/styles.csv" ]; then cp "$fashion/styles.csv" "$folder/styles.part"
    else zstd -d -c "$fashion/styles.csv.zst" >"$folder/styles.part"; fi
    mv "$folder/styles.part" "$folder/styles.csv"
}
python=${PYTHON:-$folder/venv/bin/python}
[ -x "$python" ] || {
    python3 -m venv "$folder/venv"
    "$python" -m pip install --quiet numpy==2.4.6 scikit-learn==1.9.1 safetensors==0.8.0
}
exec "$python" -B "$(dirname "$0")/compare_categories.py" "$job" "$folder" "$fashion/images" "$text" "$@"
