# Sourced by the scripts in this folder, which set `work` to a temporary folder.
# Runs a command and writes the GPU memory of all processes to $work/memory, in MiB. Writes nothing if there is no nvidia-smi.
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
