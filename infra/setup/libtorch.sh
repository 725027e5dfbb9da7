#!/usr/bin/env bash
# Puts libtorch 2.11.0 into the checkout (.libtorch/), from the Python wheels that hold it.
# Does nothing when it is there already, or when the user brings an own one (LIBTORCH, LIBTORCH_USE_PYTORCH=1).
# Without a GPU only the CPU library is linked: libtorch_cuda.so stays outside the link folder on purpose, so that one
# binary serves both kinds of machine (it is opened at start by its real path where the remaining CUDA wheels are installed).
# Safe to interrupt and run again: downloads resume through pip's cache, and the folder appears by one rename.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
target=$root/.libtorch

if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$target/libtorch" ]; then
  echo "libtorch: using yours, LIBTORCH=$LIBTORCH"; exit 0
fi
if [ "${LIBTORCH_USE_PYTORCH:-}" = 1 ]; then
  echo "libtorch: using the torch package of your Python (LIBTORCH_USE_PYTORCH=1)"; exit 0
fi

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) requirements=infra/setup/libtorch-linux-x86_64.txt; platforms="--platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64" ;;
  *) echo "libtorch: no pinned build for $(uname -s) $(uname -m)
hint: install torch 2.11.0 with pip and run again with LIBTORCH_USE_PYTORCH=1" >&2; exit 2 ;;
esac
stamp=$(cksum "$requirements" "$0" | cksum | cut -d' ' -f1)
if [ "$(cat "$target/stamp" 2>/dev/null || true)" = "$stamp" ]; then
  echo "libtorch: ready in .libtorch"; exit 0
fi

echo "libtorch: installing 2.11.0 into .libtorch (a 530 MB wheel, once)"
work=$root/.libtorch.partial
rm -rf "$work"; mkdir -p "$work/python"
# shellcheck disable=SC2086
python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
  --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none $platforms \
  --target "$work/python" -r "$requirements"

mkdir -p "$work/libtorch/lib"
ln -s ../python/torch/include "$work/libtorch/include"
for lib in libc10.so libtorch_cpu.so libtorch.so; do
  ln -s "../../python/torch/lib/$lib" "$work/libtorch/lib/$lib"
done
for pattern in 'libgomp*.so.1' 'libcudart.so.13' 'libcupti.so.13'; do
  found=$(cd "$work" && find python -name "$pattern" | head -n 1)
  [ -n "$found" ] || { echo "libtorch: the wheels hold no $pattern" >&2; exit 2; }
  ln -s "../../$found" "$work/libtorch/lib/$(basename "$found")"
done
echo "$stamp" > "$work/stamp"
rm -rf "$target"; mv "$work" "$target"
echo "libtorch: ready in .libtorch"
