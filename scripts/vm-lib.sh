# What the checks inside a virtual machine share: one `ok:` or `FAILED:` line a check, and at the end
# `closing: all checks passed` when none failed. Sourced, never run: `. "$(dirname "$0")/vm-lib.sh"`.
# shellcheck shell=bash

work=/run/nautilus-guest
mkdir -p "$work"
failures=0

ok() { echo "ok: $*"; }
note() { echo "note: $*"; }
failed() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# The last line.
closing() {
  if [ "$failures" -eq 0 ]; then echo "closing: all checks passed"; else echo "closing: $failures failed"; fi
}

note_system() { note "kernel $(uname -r), systemd $(systemctl --version | head -n 1 | cut -d' ' -f2)"; }

# within SECONDS COMMAND...: whether it succeeds in that time.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

# Pid of the worker that serves the node whose run directory is $NODE.
active() {
  local socket
  for socket in "$NODE"/worker-*.sock; do
    socket=${socket##*/worker-}
    if [ -d "/proc/${socket%.sock}" ]; then echo "${socket%.sock}"; fi
  done
}

# replaced PID: whether another worker serves.
replaced() {
  local now
  now=$(active)
  [ -n "$now" ] && [ "$now" != "$1" ]
}
