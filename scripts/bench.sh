#!/usr/bin/env bash
# The scoreboard: builds what is missing, then runs nautilus-bench.
#
#   scripts/bench.sh [--quick] [--json] ID... | all
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

install_packages "${PACKAGES_BUILD[@]}" || die "building needs those packages"
if is_root; then
  install_packages "${PACKAGES_LAB[@]}" || die "the rows on veth need those packages"
  install_packages "${PACKAGES_BENCH[@]}" || say "a peer that is missing is printed as missing"
fi
want_tracefs
build_release
exec "$CARGO_TARGET_DIR/release/nautilus-bench" "$@"
