# Sourced by the scripts beside it, which set `work`, a folder of their own.
# Runs a command and notes how much memory processes have on the GPU, in MiB; nothing without nvidia-smi.
peak() {
  : > "$work/memory"
  if command -v nvidia-smi > "$work/path"; then
    while sleep 0.2; do nvidia-smi --query-compute-apps=used_memory --format=csv,noheader,nounits >> "$work/memory"; done &
    local watch=$!
  fi
  local status=0
  "$@" || status=$?
  if [ -n "${watch:-}" ]; then kill "$watch"; fi
  return $status
}
