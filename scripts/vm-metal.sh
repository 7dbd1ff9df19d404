#!/usr/bin/env bash
# What `vm.sh metal` runs inside its virtual machine, as a systemd service: a host from nothing to a node in
# its unit, over deaths and an upgrade, and back to nothing.
set -euo pipefail

FROM=/opt/nautilus
SCRIPTS=$FROM/scripts
NODE=/run/nautilus/ny4-1
UNIT=nautilus-supervisor@ny4-1

# shellcheck source=scripts/vm-lib.sh
. "$(dirname "$0")/vm-lib.sh"

# Everything of the system's own disk that an installation could touch. Not: logs, what systemd counts, the
# copies that tools for users keep of their own files.
tree() {
  find / -xdev \( -path /var/log -o -path /var/lib/systemd -o -path /var/tmp -o -path /tmp -o -path /opt \
    -o -path /root -o -path /var/cache \) -prune -o ! -name '*-' ! -name .pwd.lock \
    \( -type d -printf '%p %y %m %u %g\n' -o -printf '%p %y %m %u %g %s %l\n' \) | LC_ALL=C sort
  sha256sum /etc/passwd /etc/group /etc/shadow /etc/gshadow
}

echoes() {
  # shellcheck disable=SC2016
  [ "$(ip netns exec client7 timeout 3 bash -c \
    'exec 3<>/dev/udp/198.18.7.1/7007; printf hello >&3; dd bs=2048 count=1 <&3' 2>/dev/null)" = hello ]
}

supervisor() { systemctl show -p MainPID --value "$UNIT"; }
restarted() {
  local now
  now=$(supervisor)
  [ "$now" != 0 ] && [ "$now" != "$1" ]
}
unit_says() { grep "$@" <<<"$(journalctl -u "$UNIT" -o cat)"; }

# get PATH: the daemon's answer.
get() {
  # shellcheck disable=SC2016
  timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/9477; printf "GET %s HTTP/1.0\r\n\r\n" "$1" >&3; cat <&3' - "$1" 2>/dev/null || true
}
attached() { [[ "$(get /readyz)" == *' 200 '* ]]; }

node_file() {
  cat <<NODE
[node]
id = "ny4-1"
[worker]
user = "nautilus"
[control]
user = "nautilus-control"
[port]
kind = "xdp"
[[interface]]
name = "unit7"
queues = [0]
[access]
sources = ["198.18.0.0/15"]
[echo]
port = 7007
[[cache]]
id = "quotes"
port = 11211
max_memory_mb = 8
NODE
}

network() {
  ip netns add client7
  ip link add unit7 numrxqueues 1 numtxqueues 1 type veth \
    peer name unit7p netns client7 numrxqueues 1 numtxqueues 1
  ip address add 198.18.7.1/24 dev unit7
  ip -n client7 address add 198.18.7.2/24 dev unit7p
  ip link set unit7 up
  ip -n client7 link set unit7p up
  # The worker verifies checksums, which a kernel peer on a veth leaves out.
  ip netns exec client7 ethtool -K unit7p tx off >/dev/null
}

check_install() {
  tree >"$work/before"
  if "$SCRIPTS/install.sh" --from "$FROM" >"$work/install.log" 2>&1; then
    ok "installed: $(tail -n 1 "$work/install.log")"
  else
    failed "install: $(tail -n 3 "$work/install.log" | tr '\n' '|')"
    return 1
  fi
  if "$SCRIPTS/install.sh" verify >"$work/verify.log" 2>&1; then
    ok "$(tail -n 1 "$work/verify.log")"
  else
    failed "verify: $(tail -n 3 "$work/verify.log" | tr '\n' '|')"
  fi
  local unit
  for unit in nautilus-control.service nautilus-supervisor@ny4-1.service; do
    if systemd-analyze verify "$unit" >"$work/analyze.log" 2>&1 && [ ! -s "$work/analyze.log" ]; then
      ok "systemd-analyze verify $unit"
    else
      failed "systemd-analyze verify $unit: $(head -n 3 "$work/analyze.log")"
    fi
    note "$(systemd-analyze security "$unit" 2>/dev/null | grep -o 'Overall.*[0-9]')"
  done
}

check_start() {
  node_file >/etc/nautilus/nodes/ny4-1.toml
  systemctl enable --now "$UNIT" >/dev/null 2>&1 || true
  if within 90 echoes; then
    ok "a node in its unit answers"
  else
    failed "the unit does not answer: $(unit_says '^nautilus-supervisor[: ]' | tail -n 6 | tr '\n' '|')"
    systemctl stop "$UNIT"
    timeout 20 /usr/lib/nautilus/current/nautilus-supervisor --config /etc/nautilus/nodes/ny4-1.toml \
      >"$work/bare.log" 2>&1 || true
    note "outside its unit: $(tail -n 1 "$work/bare.log")"
    # Whole, for whoever looks at the console: the verifier's word among it.
    tail -n 60 "$work/bare.log"
    return 1
  fi
  local worker
  worker=$(active)
  if [ "$(stat -c %U "/proc/$worker")" = nautilus ] && grep -q '^CapPrm:.0*$' "/proc/$worker/status"; then
    ok "worker $worker runs as nautilus, without a capability"
  else
    failed "worker $worker: $(stat -c %U "/proc/$worker") $(grep CapPrm "/proc/$worker/status")"
  fi
  if systemctl enable --now nautilus-control >/dev/null 2>&1 && within 30 attached; then
    ok "control is ready, and attached to the node"
  else
    failed "control: $(journalctl -u nautilus-control -o cat | tail -n 5 | tr '\n' '|')"
  fi
}

# A daemon that stands still is ended by the watchdog and started anew.
check_watchdog() {
  local first
  first=$(systemctl show -p MainPID --value nautilus-control)
  kill -STOP "$first"
  watched() {
    local now
    now=$(systemctl show -p MainPID --value nautilus-control)
    [ "$now" != 0 ] && [ "$now" != "$first" ] && attached
  }
  if within 90 watched; then ok "a control that stood still was started anew"; else failed "control stood still: $(systemctl is-active nautilus-control)"; fi
}

# The supervisor dies; systemd starts the next one, which takes the sockets back from the same worker.
kill_supervisor() { # WHEN
  local first worker
  first=$(supervisor)
  worker=$(active)
  systemctl kill --kill-who=main -s KILL "$UNIT"
  if echoes; then ok "$1: without supervisor the worker answers"; else failed "$1: without supervisor nobody answers"; fi
  if within 30 restarted "$first" && within 30 unit_says -q "supervisor $(supervisor) took the node over" &&
    [ "$(active)" = "$worker" ] && echoes; then
    ok "$1: the next supervisor has worker $worker, which never stopped"
  else
    failed "$1: $(unit_says . | tail -n 8 | tr '\n' '|')"
  fi
}

kill_worker() { # WHEN
  local worker
  sleep 3
  worker=$(active)
  kill -9 "$worker"
  if within 30 replaced "$worker" && within 30 echoes; then
    ok "$1: worker $(active) answers after worker $worker"
  else
    failed "$1: $(unit_says . | tail -n 8 | tr '\n' '|')"
  fi
}

release_of() { readlink "/proc/$1/exe" | grep -oE 'releases/[^/]+' || true; }

# settings FILE: a recording without what the kernel counts.
settings() {
  grep -vE '^(netlink/[^/]+/link|proc/(meminfo|cpuinfo|self/status|net/protocols)|.*/free_hugepages)' "$1"
}
recorded() { timeout 60 nautilus host record "$work/$1" --pack "$work/$1.txt" >/dev/null && settings "$work/$1.txt" >"$work/$1.settings"; }

# The host doctor by the supervisor, asked by control's user, in the supervisor's own sandbox.
check_stages() {
  if ! [ -w /sys/kernel/mm/transparent_hugepage/enabled ]; then
    note "host stages are not tried: /sys cannot be written here"
    return
  fi
  local as=(setpriv --reuid nautilus-control --regid nautilus-control --clear-groups)
  recorded untouched
  # 1: the kernel refused some change, which is said.
  timeout 60 "${as[@]}" nautilus host init --yes --node "$NODE" >"$work/stages.log" 2>&1 || [ $? -eq 1 ] ||
    failed "host init by the node: $(tail -n 1 "$work/stages.log")"
  recorded tuned
  timeout 60 "${as[@]}" nautilus host fini --node "$NODE" >"$work/unstaged.log" 2>&1 ||
    failed "host fini by the node: $(grep LEFT "$work/unstaged.log" | head -n 3 | tr '\n' '|')"
  recorded restored
  if cmp -s "$work/untouched.settings" "$work/tuned.settings"; then
    failed "the node changed nothing: $(tail -n 2 "$work/stages.log" | tr '\n' '|')"
  elif ! cmp -s "$work/untouched.settings" "$work/restored.settings"; then
    failed "the node left: $(diff "$work/untouched.settings" "$work/restored.settings" | grep '^[<>]' | cut -c1-120 | tr '\n' '|')"
  else
    ok "host stages by the node, for nautilus-control: $(tail -n 1 "$work/stages.log"); $(tail -n 1 "$work/unstaged.log")"
  fi
}

check_upgrade() {
  local before
  before=$(release_of "$(supervisor)")
  if ! "$SCRIPTS/install.sh" --from "$FROM" --version next >"$work/upgrade.log" 2>&1; then
    failed "upgrade: $(tail -n 3 "$work/upgrade.log" | tr '\n' '|')"
    return
  fi
  kill_supervisor upgrade
  kill_worker upgrade
  local now
  now="$(release_of "$(supervisor)") $(release_of "$(active)")"
  if [ "$now" = 'releases/next releases/next' ] && [ "$before" != releases/next ]; then
    ok "supervisor and worker went from $before to releases/next"
  else
    failed "they run $now, before: $before"
  fi
}

check_uninstall() {
  if "$SCRIPTS/install.sh" uninstall >"$work/refused.log" 2>&1; then
    failed "a serving node was uninstalled"
  elif grep -q 'these run: ' "$work/refused.log" && echoes; then
    ok "a serving node is not uninstalled: $(grep 'these run' "$work/refused.log")"
  else
    failed "uninstall: $(tail -n 2 "$work/refused.log")"
  fi
  "$SCRIPTS/install.sh" uninstall --stop --purge >"$work/uninstall.log" 2>&1 ||
    failed "uninstall: $(tail -n 3 "$work/uninstall.log" | tr '\n' '|')"
  tree >"$work/after"
  local link
  link=$(ip link show unit7)
  if ! cmp -s "$work/before" "$work/after"; then
    failed "left or missing: $(diff "$work/before" "$work/after" | grep '^[<>]' | head -n 12 | tr '\n' '|')"
  elif [[ "$link" == *xdp* ]] || pgrep -l nautilus- >"$work/alive"; then
    failed "left behind: ${link//$'\n'/ } $(cat "$work/alive")"
  else
    ok "uninstall left nothing of $(wc -l <"$work/after") paths different"
  fi
}

note_system
network
if check_install && check_start; then
  check_watchdog
  kill_supervisor 'first kill'
  kill_worker 'first kill'
  check_stages
  check_upgrade
  check_uninstall
fi
closing
