#!/usr/bin/env bash
# Installs from Debian's packages what building, the lab and the tests need; only what is missing.
# Usage: scripts/install-deps.sh [build|lab|peers|all]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

case "${1:-all}" in
  build) install_packages "${PACKAGES_BUILD[@]}" ;;
  lab) install_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_LAB[@]}" ;;
  peers)
    install_packages "${PACKAGES_PEERS[@]}"
    fetch_python_client
    ;;
  all)
    install_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_LAB[@]}" "${PACKAGES_PEERS[@]}"
    fetch_python_client
    ;;
  *) die "usage: $0 [build|lab|peers|all]" ;;
esac
