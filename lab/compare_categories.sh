#!/bin/sh
# Can the category of a product be learned from its title, its picture or both? Uses `train --task table` on vectors of titles
# and pictures and `train --task image` on pictures. The baselines are scikit-learn's logistic regressions on the same vectors
# and on TF-IDF of titles. Prints a Markdown table and notes.
# Skips results that exist in FOLDER, so an interrupted run resumes.
# usage: compare_categories.sh PATH_OF_INTENTCAST FOLDER FASHION_FOLDER TEXT_ENCODER [IMAGE_ENCODER ...]
# FASHION_FOLDER has styles.csv (or styles.csv.zst) and images/ID.jpg. TEXT_ENCODER is a Hugging Face folder. Without an
# IMAGE_ENCODER, the script uses a small network with random weights. An encoder that was trained on these products has seen
# the test rows, so its figures mean nothing. REPEATS (3) is how often the products are cut into ten folds.
# PYTHON (FOLDER/venv/bin/python) needs numpy, scikit-learn and safetensors.
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
