#!/bin/sh
# Fine-tunes MiniLM by every strategy on the women's clothing reviews, beside TF-IDF and frozen MiniLM with scikit-learn's
# logistic regression, and prints the table of docs/models/language.md. A training whose figures are there is skipped.
# usage: compare_text.sh PATH_OF_INTENTCAST REVIEWS.csv MINILM_FOLDER OUT [--set section.key=value ...]
# SAMPLE (1500; 0 for all) is the number of reviews, those with the smallest hash of their text; TASKS ("recommended rating
# department") and STRATEGIES (parted by ;) choose among what is compared. EPOCHS (1) and MAX_LENGTH (64) size a training.
# PYTHON (OUT/venv/bin/python) has numpy, scikit-learn, tokenizers and safetensors. jobs/check_minilm.sh gets the folder.
set -eu
job=${1:?usage: compare_text.sh PATH_OF_INTENTCAST REVIEWS.csv MINILM_FOLDER OUT [--set section.key=value ...]}
reviews=${2:?REVIEWS.csv: the original file, unpacked}
minilm=${3:?MINILM_FOLDER}
out=${4:?OUT: a folder outside the repository}
shift 4
mkdir -p "$out"
python=${PYTHON:-$out/venv/bin/python}
[ -x "$python" ] || {
    python3 -m venv "$out/venv"
    "$python" -m pip install --quiet numpy==2.4.6 scikit-learn==1.9.1 tokenizers==0.23.3 safetensors==0.8.0
}
exec "$python" "$(dirname "$0")/compare_text.py" "$job" "$reviews" "$minilm" "$out" "$@"
