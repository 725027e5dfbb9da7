#!/usr/bin/env bash
# Installs what the tests of the report use as a person would: Chromium and LibreOffice Calc from Debian's packages, where this runs
# as root, and playwright-core with axe-core from npm into .clients of the checkout (versions and hashes in clients/package-lock.json).
# Does nothing for what is installed already. As root, or with CI=true, a missing one is a failure; otherwise it is named, and its tests
# are skipped.
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
# The report's Chinese page needs a font that has its characters.
fc-list :lang=zh 2> /dev/null | grep . > /dev/null || packages+=(fontconfig fonts-noto-cjk)
if [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "clients: installing ${packages[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" > /dev/null
fi
for command in chromium localc npm; do
  command -v $command > /dev/null || missing+=("$command")
done
lock=infra/setup/clients/package-lock.json
stamp=$(cksum "$lock" "$0" | cksum | cut -d' ' -f1)
if [ "$(cat .clients/stamp 2> /dev/null || true)" != "$stamp" ] && command -v npm > /dev/null; then
  echo "clients: installing playwright-core and axe-core into .clients (once)"
  rm -rf .clients && mkdir .clients
  cp infra/setup/clients/package.json "$lock" .clients/
  if npm --prefix .clients ci --ignore-scripts --no-audit --no-fund --loglevel=error --update-notifier=false; then
    echo "$stamp" > .clients/stamp
  else
    missing+=("the packages of $lock")
  fi
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "clients: missing: ${missing[*]}
hint: run this as root, or install Debian's chromium, libreoffice-calc and npm; until then the tests that need them are skipped" >&2
  if [ "$(id -u)" = 0 ] || [ "${CI:-}" = true ]; then exit 2; fi
  exit 0
fi
echo "clients: ready in .clients"
