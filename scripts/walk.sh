#!/usr/bin/env bash
# A new user's walk, timed: from a Debian 12 tree with Rust and git and nothing else to ten nodes that were
# deployed and rolled, by the commands under a heading of the README as they stand there.
#
#   scripts/walk.sh [HEADING]      "Ten nodes, deployed and rolled" unless said
#
# The tree is made by debootstrap in a folder of its own, with mount and process namespaces of its own, and goes
# again. Downloads and builds are in the figure: nothing is warm but the toolchain, which is this machine's.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

heading=${1:-Ten nodes, deployed and rolled}
is_root || die "a tree is made by debootstrap: run this as root"
need_cargo
install_packages debootstrap git || die "the walk needs debootstrap and git"

# The first `sh` block under the heading, without the words that only matter for others than root.
commands=$(awk -v heading="## $heading" '
  /^## / { under = $0 == heading }
  under && /^```sh$/ { inside = 1; next }
  inside && /^```$/ { exit }
  inside { sub(/^sudo /, ""); print }' "$ROOT/README.md")
[ -n "$commands" ] || die "the README has no commands under \"$heading\""

tree=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
chmod 755 "$tree"
trap 'rm -rf --one-file-system "$tree"' EXIT
say "making a tree"
debootstrap --variant=minbase --include=ca-certificates,git bookworm "$tree" >"$tree.log" 2>&1 ||
  die "debootstrap failed: $tree.log"
rm -f "$tree.log"
# Where packages and certificates come from is this machine's affair.
rm -f "$tree/etc/apt/sources.list"
cp -a /etc/apt/. "$tree/etc/apt/"
cp -a /etc/resolv.conf /etc/hosts "$tree/etc/"
cp -a /usr/local/share/ca-certificates/. "$tree/usr/local/share/ca-certificates/" 2>/dev/null || true
cp -aL /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
git clone -q "$ROOT" "$tree/srv/nautilus"
mkdir -p "$tree/opt/rust"

{
  printf 'set -euo pipefail\ncd /srv/nautilus\n'
  printf 'step() { local begun=$EPOCHREALTIME; eval "$1"; '
  printf 'awk -v a="$begun" -v b="$EPOCHREALTIME" -v c="$1" '
  printf "'BEGIN { printf \"walk %%8.1f s  %%s\\\\n\", b - a, c }' >&2; }\n"
  while IFS= read -r command; do
    printf 'step %q\n' "$command"
  done <<<"$commands"
} >"$tree/srv/walk"

begun=$SECONDS
inside() {
  # Namespaces are entered by programs that remount /, so it has to be a mount of its own.
  mount --bind "$tree" "$tree"
  mount --bind "$(rustc --print sysroot)" "$tree/opt/rust"
  mount --rbind /sys "$tree/sys"
  mount --rbind /dev "$tree/dev"
  mount -t tmpfs tmpfs "$tree/run"
  mount -t proc proc "$tree/proc"
  exec env -i HOME=/srv TERM=dumb PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$tree" bash /srv/walk
}
export tree
export -f inside
unshare --mount --pid --fork --kill-child --propagation private bash -euc inside
printf 'the walk "%s" took %d s\n' "$heading" $((SECONDS - begun))
