#!/bin/sh
# How well does each fine-tuning strategy learn from short texts? Fine-tunes MiniLM by every strategy on the women's clothing
# reviews. The baselines are scikit-learn's logistic regressions on TF-IDF and on vectors of the frozen MiniLM. Prints a
# Markdown table. Skips trainings whose figures exist in OUT, so an interrupted run resumes.
# usage: compare_text.sh PATH_OF_INTENTCAST REVIEWS.csv MINILM_FOLDER OUT [--set section.key=value ...]
# SAMPLE (1500; 0 for all) is the number of reviews; the sample holds those with the smallest hash of their text. TASKS
# ("recommended rating department") and STRATEGIES (separated by ;) select what is compared. EPOCHS (1) and MAX_LENGTH (64)
# size a training. PYTHON (OUT/venv/bin/python) needs numpy, scikit-learn, tokenizers and safetensors. lab/check_minilm.sh
# downloads MINILM_FOLDER.
set -eu
usage='usage: compare_text.sh PATH_OF_INTENTCAST REVIEWS.csv MINILM_FOLDER OUT [--set section.key=value ...]'
job=${1:?$usage}
reviews=${2:?REVIEWS.csv: the original file, unpacked}
minilm=${3:?MINILM_FOLDER: a Hugging Face folder}
out=${4:?OUT: a folder outside the repository}
shift 4
mkdir -p "$out"
python=${PYTHON:-$out/venv/bin/python}
[ -x "$python" ] || {
    python3 -m venv "$out/venv"
    "$python" -m pip install --quiet numpy==2.4.6 scikit-learn==1.9.1 tokenizers==0.23.3 safetensors==0.8.0
}
exec "$python" -B "$(dirname "$0")/compare_text.py" "$job" "$reviews" "$minilm" "$out" "$@"
