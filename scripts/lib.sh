# Functions the scripts share. Sourced, never run: `. "$(dirname "$0")/lib.sh"`.
# shellcheck shell=bash

# The repository's root, whatever the working directory was.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT

# One target folder for every script, so that the second command reuses what the first one built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}
is_root() { [ "$(id -u)" -eq 0 ]; }

# kernel_at_least MAJOR MINOR
kernel_at_least() {
  local major minor
  IFS=.- read -r major minor _ < <(uname -r)
  [ "$major" -gt "$1" ] || { [ "$major" -eq "$1" ] && [ "$minor" -ge "$2" ]; }
}

# What a build needs, and what the lab needs to run.
PACKAGES_BUILD=(gcc libc6-dev make m4 pkg-config clang libelf-dev zlib1g-dev ca-certificates)
PACKAGES_LAB=(iproute2 ethtool procps)
# Clients, servers, oracles and a tracer nobody here wrote; the tests that use them skip where they are absent.
PACKAGES_PEERS=(memcached libmemcached-tools prometheus strace tcpdump tshark python3 python3-numpy python3-six python3-pip)
# What the scoreboard compares with.
PACKAGES_BENCH=(memcached redis-server dpdk-dev librte-net-af-xdp23)
export PACKAGES_BUILD PACKAGES_LAB PACKAGES_PEERS PACKAGES_BENCH

package_is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages NAME...: installs what is missing of them. Without root it names what is missing.
install_packages() {
  local missing=() name
  command -v dpkg-query >/dev/null || return 0
  for name in "$@"; do
    package_is_installed "$name" || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! is_root; then
    say "missing packages: ${missing[*]} (as root: apt-get install --no-install-recommends ${missing[*]})"
    return 1
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # No service of an installed peer may start: the tests start their own, in their own namespaces.
  local policy=/usr/sbin/policy-rc.d made=false
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=true
  fi
  local status=0
  apt_get install "${missing[@]}" || { apt_get update && apt_get install "${missing[@]}"; } || status=1
  if $made; then rm -f "$policy"; fi
  [ "$status" -eq 0 ] || say "could not install: ${missing[*]}"
  return "$status"
}

# Clients that come from elsewhere than Debian, each in a folder of its own name.
export NAUTILUS_PEERS=${NAUTILUS_PEERS:-$CARGO_TARGET_DIR/peers}

# Fetches python-memcached-udp: its one release is tagged for Python 2 but runs on 3.
fetch_python_client() {
  local folder="$NAUTILUS_PEERS/python-memcached-udp"
  [ ! -e "$folder/memcached_udp.py" ] || return 0
  command -v python3 >/dev/null || return 1
  mkdir -p "$folder"
  (
    # Chained: errexit is off where a caller tests the result.
    cd "$folder" &&
      timeout 120 python3 -m pip -q --disable-pip-version-check download --no-deps --pre \
        --python-version 2.7 --implementation py --abi none --platform any \
        --only-binary=:all: python-memcached-udp >&2 &&
      python3 -m zipfile -e ./*.whl .
  )
}

apt_get() {
  local verb=$1
  shift
  apt-get "$verb" -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >&2 </dev/null
}

# Finds cargo where rustup puts it when the shell has not been told.
find_cargo() {
  local folder=${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}
  if ! command -v cargo >/dev/null && [ -x "$folder/bin/cargo" ]; then
    export PATH="$folder/bin:$PATH"
  fi
  command -v cargo >/dev/null
}

need_cargo() { find_cargo || die "cargo was not found: install Rust with rustup"; }

# Whether this user can build: cargo answers, and the target folder, or the one it would be made in,
# takes files.
can_build() {
  find_cargo && (cd "$ROOT" && cargo --version >/dev/null 2>&1) || return 1
  local folder=$CARGO_TARGET_DIR
  [ ! -d "$folder/release" ] || folder=$folder/release
  [ -d "$folder" ] || folder=$(dirname "$folder")
  [ -w "$folder" ]
}

# What this machine cannot keep of the promises, one line each; nothing when it keeps them all.
host_limits() {
  if ! kernel_at_least 6 1; then
    echo "kernel $(uname -r): below 6.1, the xdp port is refused"
  elif ! kernel_at_least 6 4; then
    echo "kernel $(uname -r): a restarted worker has to rebind its sockets (6.4 maps bound rings); 6.6 keeps every promise"
  elif ! kernel_at_least 6 6; then
    echo "kernel $(uname -r): tested from 6.6 on"
  fi
  [ -r /sys/kernel/btf/vmlinux ] || echo "no BTF (/sys/kernel/btf/vmlinux): the xdp port is refused"
  if ! is_root; then
    echo "not root: no XDP and no namespaces; a node on kernel sockets and the loopback is what runs"
  elif ! namespaces_work; then
    echo "network namespaces cannot be made here: the lab and its tests are skipped"
  fi
}

# Whether this user can make a network namespace with a veth in it.
namespaces_work() {
  is_root && command -v ip >/dev/null || return 1
  local name="neprobe$$"
  ip netns add "$name" 2>/dev/null || return 1
  local status=0
  ip -n "$name" link add nep0 type veth peer name nep1 2>/dev/null || status=1
  ip netns delete "$name" 2>/dev/null || true
  return "$status"
}

# Mounts the kernel's trace files where no one has: system calls are counted by one of their events.
want_tracefs() {
  is_root && [ ! -d /sys/kernel/tracing/events ] || return 0
  mount -t tracefs nodev /sys/kernel/tracing 2>/dev/null || say "no tracefs: system calls cannot be counted"
}

# Builds every program in the release profile; says so only when there is something to build.
build_release() {
  need_cargo
  (cd "$ROOT" && cargo build --release --locked --quiet --workspace --bins) >&2 ||
    die "the build failed"
}
