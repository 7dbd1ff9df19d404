#!/usr/bin/env bash
# Shows, in a virtual machine, what the running kernel cannot: Debian's stock kernel, bonds, VLAN
# devices, a live systemd. In software, some three minutes: for behaviour, never for figures. Never run
# by test.sh.
#
#   scripts/vm.sh [engine]   builds the image once, then boots it and runs scripts/vm-guest.sh inside
#   scripts/vm.sh metal      runs scripts/vm-metal.sh inside: install, units, upgrade, host stages, uninstall
#   scripts/vm.sh --fresh    builds the image anew
#   scripts/vm.sh --kvm      boots it by KVM; a nested one may hang before the first line
#   scripts/vm.sh --backports  by the newest kernel of Debian's backports, which keeps every promise, not by 6.1
#   scripts/vm.sh --here     no virtual machine: the image's systemd in namespaces of this one (scripts/vm-here.sh)
#   scripts/vm.sh --from DIR takes the programs there; else they are built
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# What the guest has beyond a minimal bookworm.
GUEST_PACKAGES=linux-image-amd64,systemd-sysv,udev,dbus,kmod,iproute2,ethtool,procps,libelf1,zlib1g
# Longest a boot and the checks may take in emulation; too low fails on a slow host.
GUEST_SECONDS_MAX=1500
DISK_MIB=3072

fresh=false
here=false
backports=false
accelerator=tcg,thread=multi
processor=max
checks='vm-guest.sh'
from=
while [ $# -gt 0 ]; do
  case "$1" in
    engine) checks='vm-guest.sh' ;;
    metal) checks='vm-metal.sh' ;;
    --fresh) fresh=true ;;
    # A nested hypervisor may refuse to set what it shows of it.
    --kvm) accelerator=kvm processor=max,arch-capabilities=off ;;
    --here) here=true ;;
    --backports) backports=true ;;
    --from) from=${2:?} && shift ;;
    *) die "usage: $0 [--fresh] [--kvm|--here] [--backports] [--from DIR] [engine|metal]" ;;
  esac
  shift
done
is_root || die "the image is built with debootstrap: run this as root"
install_packages "${PACKAGES_BUILD[@]}" debootstrap qemu-system-x86 e2fsprogs ||
  die "the virtual machine needs those packages"
if [ -z "$from" ]; then
  build_release
  from=$CARGO_TARGET_DIR/release
fi

vm="$CARGO_TARGET_DIR/vm"
tree="$vm/tree"
mkdir -p "$vm"
if $fresh; then rm -rf "$tree"; fi
if [ ! -e "$vm/tree.complete" ] || [ ! -d "$tree" ]; then
  rm -rf "$tree" "$vm/tree.complete"
  say "debootstrap: bookworm with its own kernel"
  debootstrap --variant=minbase --include="$GUEST_PACKAGES" bookworm "$tree" >"$vm/debootstrap.log" 2>&1 ||
    die "debootstrap failed: $vm/debootstrap.log"
  touch "$vm/tree.complete"
fi

# The tree's kernel of backports, beside its own.
add_backports() {
  local list=$tree/etc/apt/sources.list.d/backports.list status=0 from
  say "a kernel of backports"
  # From where the rest of the tree came.
  from=$(awk '$1 == "deb" && $3 == "bookworm" { print $2; exit }' "$tree/etc/apt/sources.list")
  echo "deb ${from:?the tree has no list of sources} bookworm-backports main" >"$list"
  cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
  mount -t proc proc "$tree/proc"
  chroot "$tree" env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -q && apt-get install -q -y \
    --no-install-recommends -t bookworm-backports linux-image-amd64' >"$vm/backports.log" 2>&1 || status=$?
  umount "$tree/proc"
  rm -f "$list"
  [ "$status" -eq 0 ] || die "no kernel of backports: $vm/backports.log"
}
# kernel_of PREFIX: the newest such file of the kernel that is to run.
kernel_of() {
  if $backports; then
    find "$tree/boot" -name "$1-*" ! -name "$1-6.1.*" | sort -V | tail -n 1
  else
    find "$tree/boot" -name "$1-6.1.*" | sort -V | tail -n 1
  fi
}
if $backports && [ -z "$(kernel_of vmlinuz)" ]; then add_backports; fi

say "the image"
rm -rf "$tree/opt/nautilus"
install -d "$tree/opt/nautilus"
for program in nautilus{,-audit,-ca,-capture,-control,-front,-lab,-replay,-supervisor,-worker}; do
  # Without line tables, which nobody reads there, and which make the image three times as large.
  install -s -m 755 "$from/$program" "$tree/opt/nautilus/"
done
cp -r "$ROOT/scripts" "$tree/opt/nautilus/scripts"
if $here; then exec "$ROOT/scripts/vm-here.sh" "$tree" "$checks"; fi
cat >"$tree/etc/systemd/system/nautilus-guest.service" <<UNIT
[Unit]
Description=Checks of Nautilus Edge in a virtual machine
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/opt/nautilus/scripts/$checks
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=journal+console
StandardError=journal+console
UNIT
install -d "$tree/etc/systemd/system/multi-user.target.wants"
ln -sf ../nautilus-guest.service "$tree/etc/systemd/system/multi-user.target.wants/"
echo '/dev/vda / ext4 defaults 0 1' >"$tree/etc/fstab"
rm -f "$vm/disk.ext4"
mke2fs -q -t ext4 -d "$tree" "$vm/disk.ext4" "${DISK_MIB}M"

kernel=$(kernel_of vmlinuz)
initrd=$(kernel_of initrd.img)
[ -n "$kernel" ] && [ -n "$initrd" ] || die "no kernel in $tree/boot"
say "booting ${kernel##*/} (console: $vm/console.log)"
status=0
timeout "$GUEST_SECONDS_MAX" qemu-system-x86_64 -accel "$accelerator" -cpu "$processor" -smp 2 -m 2048 \
  -object memory-backend-ram,id=first,size=1G -numa node,memdev=first,cpus=0 \
  -object memory-backend-ram,id=second,size=1G -numa node,memdev=second,cpus=1 \
  -kernel "$kernel" -initrd "$initrd" \
  -append "root=/dev/vda rw console=ttyS0 systemd.show_status=false panic=5" \
  -drive "file=$vm/disk.ext4,format=raw,if=virtio" -nic none -no-reboot \
  -display none -serial "file:$vm/console.log" -monitor none </dev/null || status=$?
[ "$status" -eq 0 ] || say "qemu ended with $status"

tr -d '\r' <"$vm/console.log" | grep -oE '(ok|FAILED|note|closing): .*' || true
grep -q 'closing: all checks passed' "$vm/console.log" || die "not all checks passed: $vm/console.log"
