#!/usr/bin/env bash
# Runs checks below systemd as process 1 in namespaces of this machine: its own kernel, at its own speed, and no
# virtual machine. Called by vm.sh with the image's tree and the name of the checks; the tree is not changed,
# /sys cannot be written, and nothing is left.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

tree=$1 checks=$2
# Longest that systemd may take to start, and the checks to end.
START_SECONDS_MAX=60
CHECKS_SECONDS_MAX=900

is_root || die "namespaces need root"
unified=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)
[ -n "$unified" ] || die "no cgroup2 is mounted here"
work=$(mktemp -d)
group=$unified/nautilus-here-$$
init=

# Called when the script ends.
# shellcheck disable=SC2317
clean() {
  if [ -n "$init" ]; then kill -9 "$init" 2>/dev/null || true; fi
  wait 2>/dev/null || true
  umount "$work/guest" 2>/dev/null || true
  umount "$work" 2>/dev/null || true
  rmdir "$work" 2>/dev/null || true
  local try
  for try in 1 2 3 4 5; do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep "0.$try"
  done
}
trap clean EXIT

mount -t tmpfs tmpfs "$work"
mkdir "$work"/{above,temporary,guest} "$group"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/above,workdir=$work/temporary" "$work/guest"
rm -f "$work/guest/etc/systemd/system/multi-user.target.wants/nautilus-guest.service"

# shellcheck disable=SC2016 # for the inner shell
unshare --pid --fork --mount --uts --ipc --net --cgroup --kill-child bash -c '
  set -euo pipefail
  echo 0 >"$2/cgroup.procs"
  exec unshare --cgroup bash -c '"'"'
    set -euo pipefail
    root=$1/guest
    mount --make-rprivate /
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for name in null zero full random urandom tty; do
      touch "$root/dev/$name"
      mount --bind "/dev/$name" "$root/dev/$name"
    done
    mkdir "$root"/dev/{shm,pts} "$root/run/netns"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ip link set lo up
    cd "$root"
    mkdir -p old
    pivot_root . old
    umount -l /old
    rmdir /old
    exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
      /lib/systemd/systemd --system --log-target=journal --show-status=no --unit=multi-user.target
  '"'"' - "$1"
' - "$work" "$group" </dev/null >"$work/init.log" 2>&1 &
outer=$!

inside() { nsenter -t "$init" -m -u -i -n -p -C env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

end=$((SECONDS + START_SECONDS_MAX))
while true; do
  init=$(pgrep -P "$outer" || true)
  if [ -n "$init" ] && [[ "$(inside systemctl is-system-running 2>/dev/null || true)" =~ running|degraded ]]; then break; fi
  [ "$SECONDS" -lt "$end" ] || die "systemd did not start: $(tail -n 3 "$work/init.log")"
  sleep 0.3
done
inside timeout "$CHECKS_SECONDS_MAX" "/opt/nautilus/scripts/$checks" </dev/null | tee "$work/checks.log"
grep -q 'closing: all checks passed' "$work/checks.log" || die "not all checks passed"
