#!/usr/bin/env bash
# Installs Apache Airflow into .airflow of the checkout, for the test that loads jobs/airflow/ as a scheduler would.
# Does nothing if it is installed already. Packages are verified by hash. Airflow's home (its settings and its small database) is
# .airflow/home, so nothing is written outside the checkout.
# Safe to interrupt and run again: the folder is used only after its stamp is written.
set -euo pipefail
cd "$(dirname "$0")/../.."
requirements=infra/setup/airflow-requirements.txt
stamp=$(cksum "$requirements" "$0" | cksum | cut -d' ' -f1)
if [ "$(cat .airflow/stamp 2>/dev/null || true)" = "$stamp" ] && .airflow/bin/python -c '' 2>/dev/null; then
  echo "airflow: ready in .airflow"; exit 0
fi
if ! python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'; then
  echo "airflow: expected Python 3.11 to 3.14, got $(python3 --version)
hint: put such a python3 first in PATH" >&2; exit 2
fi
echo "airflow: installing 3.3.2 into .airflow (270 MB, once)"
rm -rf .airflow
# The environment has no pip, so that Debian's python3 needs no python3-venv package. The outer pip installs into it.
python3 -m venv --without-pip .airflow
python3 -m pip --python .airflow/bin/python install --quiet --disable-pip-version-check --no-deps --require-hashes \
  --only-binary=:all: -r "$requirements"
export AIRFLOW_HOME=$PWD/.airflow/home AIRFLOW__CORE__LOAD_EXAMPLES=False
# Airflow queries its database for pools and bundles even when it only checks local files.
if ! .airflow/bin/python -m airflow db migrate > .airflow/migrate.log 2>&1; then
  tail -n 20 .airflow/migrate.log >&2
  echo "airflow: could not create the database
hint: see .airflow/migrate.log for the whole log" >&2; exit 2
fi
echo "$stamp" > .airflow/stamp
echo "airflow: ready in .airflow"
