#!/usr/bin/env bash
# Installs independent readers (the Python packages deltalake, duckdb and tensorboard) into .venv of the checkout, for the tests that
# read our tables and event files back. Does nothing if they are installed already. Packages are verified by hash.
# Safe to interrupt and run again: the folder is used only after its stamp is written.
set -euo pipefail
cd "$(dirname "$0")/../.."
requirements=infra/setup/python-requirements.txt
stamp=$(cksum "$requirements" "$0" | cksum | cut -d' ' -f1)
if [ "$(cat .venv/stamp 2>/dev/null || true)" = "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
  echo "python: ready in .venv"; exit 0
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "python: expected Python 3.11 or newer, got $(python3 --version)
hint: put a newer python3 first in PATH" >&2; exit 2
fi
echo "python: installing the readers into .venv (300 MB, once)"
rm -rf .venv
# The environment has no pip, so that Debian's python3 needs no python3-venv package. The outer pip installs into it.
python3 -m venv --without-pip .venv
python3 -m pip --python .venv/bin/python install --quiet --disable-pip-version-check --no-deps --require-hashes \
  --only-binary=:all: -r "$requirements"
echo "$stamp" > .venv/stamp
echo "python: ready in .venv"
