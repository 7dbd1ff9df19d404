#!/usr/bin/env bash
# Labs of network namespaces: builds what is missing, then runs nautilus-lab.
#
#   scripts/lab.sh up N [--name NAME] [--json]     N nodes, a client, a venue and one control
#                       [--faults [MEMBER=]FILE]   with a wire at the venue, or MEMBER, that harms packets
#                       [--parked]                 nodes wait for a deployment
#   scripts/lab.sh release RELEASE [--from FOLDER] [--name NAME]       programs that the nodes may be given
#   scripts/lab.sh deployment ID --release RELEASE [--type TYPE] [--replaces ID] [--name NAME]   prints one
#   scripts/lab.sh status [--name NAME] [--json]
#   scripts/lab.sh shell MEMBER [-- COMMAND...]    node1, client, venue or control
#   scripts/lab.sh down [--name NAME]              complete, and quiet when nothing is up
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

is_root || die "a lab is made of network namespaces: run this as root"
install_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_LAB[@]}" || die "the lab needs those packages"
build_release
exec "$CARGO_TARGET_DIR/release/nautilus-lab" "$@"
