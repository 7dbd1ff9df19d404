#!/usr/bin/env bash
# One node end to end: installs what it needs, builds, leads a venue's lossy lines into a node while clients
# read, kills the worker, prints latencies, the gap and what was recovered, cleans up.
#
#   scripts/demo.sh [FILE] [--seconds N] [--rate N] [--feed-rate N] [--loss-ppm N] [--socket]
#
# FILE, a capture of MoldUDP64 (pcap) or an ITCH 5.0 BinaryFILE, is replayed in the venue's place. Without root, the same job over
# kernel sockets on loopback; where that user cannot build, with the programs that lie there.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

if is_root; then
  install_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_LAB[@]}" || die "the demo needs those packages"
fi
limits=$(host_limits)
if [ -n "$limits" ]; then say "this machine cannot show:" && say "$limits"; fi
if can_build; then
  is_root || install_packages "${PACKAGES_BUILD[@]}" || die "building needs those packages"
  build_release
else
  # Another user built them; a run needs no more than to read them.
  for program in nautilus-demo nautilus-supervisor nautilus-worker nautilus-replay; do
    [ -x "$CARGO_TARGET_DIR/release/$program" ] ||
      die "$(id -un 2>/dev/null || id -u) cannot build here, and $CARGO_TARGET_DIR/release/$program is not there to run"
  done
  say "not built anew (no cargo, or $CARGO_TARGET_DIR is another user's): the programs as they lie there"
fi

arguments=()
if is_root && ! { namespaces_work && kernel_at_least 6 1; }; then arguments=(--socket); fi
exec "$CARGO_TARGET_DIR/release/nautilus-demo" "${arguments[@]}" "$@"
