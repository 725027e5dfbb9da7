#!/usr/bin/env bash
# Installs what the tests of the report and of the server use as a person would:
# - Debian's packages, where this runs as root: Chromium, LibreOffice Calc, npm, psql, the PostgreSQL JDBC driver, curl and OpenSSL;
# - playwright-core with axe-core from npm, into .clients of the checkout (versions and hashes in clients/package-lock.json);
# - Python's clients of PostgreSQL and Arrow Flight SQL with a Java runtime, and the trackers of experiments MLflow and Weights & Biases,
#   into .clients/python (clients/requirements.txt).
# Does nothing for what is installed already. As root, or with CI=true, a missing one is a failure; otherwise it is named, and its tests
# are skipped. Safe to interrupt and run again: a folder is used only after its stamp is written.
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
need() { # need COMMAND PACKAGE...
  local command=$1; shift
  command -v "$command" > /dev/null || packages+=("$@")
}
packages=()
need chromium chromium
need localc libreoffice-calc
need npm npm
need psql postgresql-client
need curl curl
need openssl openssl
jdbc=/usr/share/java/postgresql.jar
[ -e $jdbc ] || packages+=(libpostgresql-jdbc-java)
# The report's Chinese page needs a font that has its characters.
fc-list :lang=zh 2> /dev/null | grep . > /dev/null || packages+=(fontconfig fonts-noto-cjk)
if [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "clients: installing ${packages[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" > /dev/null
fi
for command in chromium localc npm psql curl openssl; do
  command -v $command > /dev/null || missing+=("$command")
done
[ -e $jdbc ] || missing+=("$jdbc")

lock=infra/setup/clients/package-lock.json
stamp=$(cksum "$lock" "$0" | cksum | cut -d' ' -f1)
if [ "$(cat .clients/stamp 2> /dev/null || true)" != "$stamp" ] && command -v npm > /dev/null; then
  echo "clients: installing playwright-core and axe-core into .clients (once)"
  rm -rf .clients/stamp .clients/node_modules && mkdir -p .clients
  cp infra/setup/clients/package.json "$lock" .clients/
  if npm --prefix .clients ci --ignore-scripts --no-audit --no-fund --loglevel=error --update-notifier=false; then
    echo "$stamp" > .clients/stamp
  else
    missing+=("the packages of $lock")
  fi
fi

requirements=infra/setup/clients/requirements.txt
python=.clients/python
stamp=$(cksum "$requirements" "$0" | cksum | cut -d' ' -f1)
if [ "$(cat $python/stamp 2> /dev/null || true)" != "$stamp" ] || ! $python/bin/python -c '' 2> /dev/null; then
  rm -rf $python
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    missing+=("Python 3.11 or newer")
  else
    echo "clients: installing the clients of PostgreSQL and Flight SQL, MLflow and W&B into $python (1 GB, once)"
    # The environment has no pip, so that Debian's python3 needs no python3-venv package. The outer pip installs into it.
    if python3 -m venv --without-pip $python &&
      python3 -m pip --python $python/bin/python install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: -r "$requirements"; then
      echo "$stamp" > $python/stamp
    else
      missing+=("the packages of $requirements")
    fi
  fi
fi

if [ ${#missing[@]} -gt 0 ]; then
  (IFS=,; echo "clients: missing: ${missing[*]}
hint: run this as root, or install Debian's chromium, libreoffice-calc, npm, postgresql-client, curl, openssl and
libpostgresql-jdbc-java, and Python with pip; until then the tests that need them are skipped" >&2)
  if [ "$(id -u)" = 0 ] || [ "${CI:-}" = true ]; then exit 2; fi
  exit 0
fi
echo "clients: ready in .clients"
