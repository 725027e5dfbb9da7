#!/usr/bin/env bash
# Installs libtorch 2.11.0 and LightGBM 4.7.0 into the checkout (.libtorch/) from the Python wheels that contain them.
# Does nothing if they are installed already, or if you use your own libtorch (LIBTORCH, LIBTORCH_USE_PYTORCH=1): then install
# `lightgbm` next to it, or set train.lightgbm_library. LightGBM is opened when a training needs it, never linked.
# Only the CPU library is linked. libtorch_cuda.so stays outside the link folder on purpose, so that one binary serves machines with
# and without a GPU (src/score/devices.rs opens it by its real path). On a machine with a GPU, or with --cuda (for images that are
# built elsewhere), the CUDA wheels that it needs are installed, too.
# Safe to interrupt and run again: downloads resume through pip's cache, and the folder appears by one rename.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
target=$root/.libtorch

if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$target/libtorch" ]; then
  echo "libtorch: using your own, LIBTORCH=$LIBTORCH"; exit 0
fi
if [ "${LIBTORCH_USE_PYTORCH:-}" = 1 ]; then
  echo "libtorch: using the torch package of your Python (LIBTORCH_USE_PYTORCH=1)"; exit 0
fi

cuda=no
if [ "${1:-}" = --cuda ] || [ -e /dev/nvidia0 ] || command -v nvidia-smi > /dev/null; then cuda=yes; fi

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) requirements=(infra/setup/libtorch-linux-x86_64.txt); platforms="--platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64" ;;
  *) echo "libtorch: no pinned build for $(uname -s) $(uname -m)
hint: install torch 2.11.0 with pip and run again with LIBTORCH_USE_PYTORCH=1" >&2; exit 2 ;;
esac
with_cuda=("${requirements[@]}" infra/setup/libtorch-cuda-linux-x86_64.txt)
stamp_of() { cksum "$@" infra/setup/libtorch.sh | cksum | cut -d' ' -f1; }
size="a 530 MB wheel"
there=$(cat "$target/stamp" 2>/dev/null || true)
# An installation for a GPU also serves a machine without one.
if [ "$there" = "$(stamp_of "${with_cuda[@]}")" ] || { [ $cuda = no ] && [ "$there" = "$(stamp_of "${requirements[@]}")" ]; }; then
  echo "libtorch: ready in .libtorch"; exit 0
fi
if [ $cuda = yes ]; then
  requirements=("${with_cuda[@]}")
  size="with the CUDA wheels, about 2.5 GB"
fi

echo "libtorch: installing 2.11.0, and LightGBM 4.7.0, into .libtorch ($size, once)"
work=$root/.libtorch.partial
rm -rf "$work"; mkdir -p "$work/python"
# shellcheck disable=SC2086
python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
  --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none $platforms \
  --target "$work/python" "${requirements[@]/#/--requirement=}"

mkdir -p "$work/libtorch/lib"
ln -s ../python/torch/include "$work/libtorch/include"
for lib in libc10.so libtorch_cpu.so libtorch.so; do
  ln -s "../../python/torch/lib/$lib" "$work/libtorch/lib/$lib"
done
for pattern in 'libgomp*.so.1' 'libcudart.so.13' 'libcupti.so.13'; do
  found=$(cd "$work" && find python -name "$pattern" -print -quit)
  [ -n "$found" ] || { echo "libtorch: found no $pattern in the wheels" >&2; exit 2; }
  ln -s "../../$found" "$work/libtorch/lib/$(basename "$found")"
done
stamp_of "${requirements[@]}" > "$work/stamp"
rm -rf "$target"; mv "$work" "$target"
echo "libtorch: ready in .libtorch"
