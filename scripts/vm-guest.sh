#!/usr/bin/env bash
# What vm.sh runs inside its virtual machine, as a systemd service.
set -euo pipefail

PATH=/opt/nautilus:$PATH
# shellcheck source=scripts/vm-lib.sh
. "$(dirname "$0")/vm-lib.sh"
NODE=$work/node

# node_file INTERFACE: the smallest node file that serves echo and a cache on it.
node_file() {
  cat <<NODE
[node]
id = "guest"
run_dir = "$NODE"
[port]
kind = "xdp"
[[interface]]
name = "$1"
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

# ask PORT REQUEST: one datagram (escapes as of printf) to the node, from another namespace; prints
# the answer without its NUL bytes, or nothing.
ask() {
  # By dd, because bash writes a line at a time, and each write is a datagram.
  # shellcheck disable=SC2016
  ip netns exec client7 timeout 5 bash -c \
    'exec 3<>"/dev/udp/198.18.7.1/$1"; printf "$2" | dd bs=2048 iflag=fullblock >&3; dd bs=2048 count=1 <&3' \
    - "$1" "$2" 2>/dev/null | tr -d '\0' || true
}

# A memcached command as one datagram: the frame header of UDP, then the text.
cache() { ask 11211 "\\0\\1\\0\\0\\0\\1\\0\\0$1"; }

echoes() { [ "$(ask 7007 'hello')" = hello ]; }
keeps() { [[ "$(cache 'get kept\r\n')" == *'VALUE kept 0 5'*'value'* ]]; }

# refused INTERFACE WORD: the supervisor must refuse the interface with a message that holds WORD.
refused() {
  node_file "$1" >"$work/refused.toml"
  if timeout 60 nautilus-supervisor --config "$work/refused.toml" >"$work/refused.log" 2>&1; then
    failed "$1 was served"
  elif grep -qi "$2" "$work/refused.log"; then
    ok "$1 is refused: $(grep -i "$2" "$work/refused.log" | head -n 1)"
  else
    failed "$1 was refused without naming $2: $(head -n 3 "$work/refused.log")"
  fi
}

check_kernel() {
  note_system
  local file="$work/check.toml"
  node_file eth0 >"$file"
  timeout 60 nautilus-supervisor --config "$file" --check >"$work/check.log" 2>&1 || true
  while read -r line; do note "$line"; done <"$work/check.log"
  note "host check: $(timeout 60 nautilus host check 2>&1 | grep -i kernel | head -n 1)"
}

# settings FILE: a recording without what the kernel counts.
settings() {
  grep -vE '^(netlink/[^/]+/link|proc/(meminfo|cpuinfo|self/status|net/protocols)|.*/free_hugepages)' "$1"
}

# The host doctor on a running kernel: what it changes it undoes.
check_host() {
  local state="$work/host.state" name
  # A driver that is loaded meanwhile sets up interrupts that nobody tuned.
  udevadm settle --timeout=120 || failed "devices do not settle"
  timeout 60 nautilus host record "$work/before" --pack "$work/before.txt" >/dev/null
  # 1: the kernel refused some change, which is said.
  timeout 60 nautilus host init --yes --state "$state" >"$work/init.log" 2>&1 || [ $? -eq 1 ] ||
    failed "host init: $(tail -n 1 "$work/init.log")"
  timeout 60 nautilus host record "$work/tuned" --pack "$work/tuned.txt" >/dev/null
  timeout 60 nautilus host fini --state "$state" >"$work/fini.log" 2>&1 ||
    failed "host fini: $(grep LEFT "$work/fini.log" | head -n 3 | tr '\n' '|')"
  # A link whose rings were changed negotiates anew.
  sleep 5
  timeout 60 nautilus host record "$work/after" --pack "$work/after.txt" >/dev/null
  for name in before tuned after; do settings "$work/$name.txt" >"$work/$name.settings"; done
  if cmp -s "$work/before.settings" "$work/tuned.settings"; then
    failed "host init changed nothing"
  elif ! cmp -s "$work/before.settings" "$work/after.settings"; then
    failed "host fini left: $(diff "$work/before.settings" "$work/after.settings" | grep '^[<>]' | cut -c1-120 | tr '\n' '|')"
  else
    ok "host init and fini: $(tail -n 1 "$work/init.log"); $(tail -n 1 "$work/fini.log")"
  fi
}

check_refusals() {
  if modprobe bonding && ip link add bond7 type bond && ip link add slave7 type dummy; then
    ip link set slave7 master bond7
    refused bond7 bond
    refused slave7 bond
  else
    failed "no bonding module"
  fi
  if ip link add name base7 type veth peer name base7p &&
    ip link add link base7 name base7.5 type vlan id 5; then
    refused base7.5 vlan
  else
    failed "no VLAN devices"
  fi
}

check_lab() {
  if timeout 300 nautilus-lab up 1 >"$work/lab.log" 2>&1; then
    ok "a lab of one node serves on this kernel"
    local pid
    pid=$(pgrep -o nautilus-worker || true)
    if [ -n "$pid" ]; then
      kill -9 "$pid"
      sleep 5
      if pgrep nautilus-worker >/dev/null; then
        ok "a killed worker is replaced"
      else
        failed "a killed worker was not replaced"
      fi
    fi
    grep -hi 'rebind\|6\.4' /run/nautilus-lab/lab/node1.log | head -n 3 |
      while read -r line; do note "node1 says: $line"; done || true
  else
    failed "lab up: $(tail -n 5 "$work/lab.log")"
  fi
  timeout 120 nautilus-lab down || failed "lab down"
}

# unit_says GREP_ARGUMENTS...: lines of the unit's journal. No pipe: grep -q would break one.
unit_says() { grep "$@" <<<"$(journalctl -u nautilus-node -o cat)"; }

# kill_worker WHEN: the worker is killed, another answers, and has what was acknowledged.
kill_worker() {
  local victim
  victim=$(active)
  kill -9 "$victim"
  if ! within 30 replaced "$victim"; then
    failed "$1: worker $victim was not replaced: $(unit_says . | tail -n 4 | tr '\n' '|')"
  elif ! within 30 echoes; then
    failed "$1: nobody answers after worker $victim"
  elif ! within 10 keeps; then
    failed "$1: the cache lost what it had acknowledged: $(cache 'get kept\r\n')"
  else
    ok "$1: worker $(active) answers after worker $victim and has what was acknowledged"
  fi
  # Its standby must be there before the next one is killed.
  sleep 3
}

# Worker and supervisor run on different NUMA nodes; what they share has to lie on the worker's.
check_memory() {
  local worker supervisor lies
  worker=$(active)
  supervisor=$(systemctl show -p MainPID --value nautilus-node)
  lies=$(awk '/memfd:nautilus/ { for (i = 3; i <= NF; i++) if ($i ~ /^N[0-9]+=/) { split($i, part, "="); pages[part[1]] += part[2] } }
    END { for (node in pages) print node "=" pages[node] }' "/proc/$worker/numa_maps" | sort | xargs)
  note "worker $worker on CPU $(taskset -pc "$worker" | sed 's/.*: //'), supervisor on $(taskset -pc "$supervisor" | sed 's/.*: //'), pages of regions $lies"
  if [[ "$lies" =~ ^N1=[0-9]+$ ]]; then
    ok "all regions lie on the worker's NUMA node"
  else
    failed "regions lie on $lies, the worker runs on N1"
  fi
}

check_systemd() {
  ip netns add client7
  ip link add unit7 numrxqueues 1 numtxqueues 1 type veth \
    peer name unit7p netns client7 numrxqueues 1 numtxqueues 1
  ip address add 198.18.7.1/24 dev unit7
  ip -n client7 address add 198.18.7.2/24 dev unit7p
  ip link set unit7 up
  ip -n client7 link set unit7p up
  # The worker verifies checksums, which a kernel peer on a veth leaves out.
  ip netns exec client7 ethtool -K unit7p tx off >/dev/null
  node_file unit7 >"$work/unit.toml"
  cat >/run/systemd/system/nautilus-node.service <<UNIT
[Unit]
Description=Nautilus Edge node
[Service]
ExecStart=/opt/nautilus/nautilus-supervisor --config $work/unit.toml
Restart=always
KillMode=process
UNIT
  systemctl daemon-reload
  systemctl start nautilus-node
  if ! within 60 echoes; then
    failed "the unit does not answer: $(unit_says . | tail -n 8 | tr '\n' '|')"
    return
  fi
  ok "a node in a systemd unit answers"
  check_memory
  unit_says '6\.4' | head -n 4 | while read -r line; do note "unit says: $line"; done || true
  if [ "$(uname -r | cut -d. -f1-2)" = 6.1 ]; then
    if unit_says -q '"no rebind" is withdrawn' && unit_says -q 'binds sockets of its own'; then
      ok "what 6.1 cannot keep is named"
    else
      failed "what 6.1 cannot keep is not named"
    fi
  fi
  if [[ "$(cache 'set kept 0 0 5\r\nvalue\r\n')" == *STORED* ]] && keeps; then
    ok "the cache stores and answers"
  else
    failed "the cache does not answer: $(cache 'get kept\r\n')"
  fi
  sleep 3
  for round in 1 2 3; do kill_worker "kill $round"; done

  local first second worker
  first=$(systemctl show -p MainPID --value nautilus-node)
  worker=$(active)
  kill -9 "$first"
  if echoes; then ok "without supervisor the worker answers"; else failed "without supervisor nobody answers"; fi
  sleep 5
  second=$(systemctl show -p MainPID --value nautilus-node)
  if [ "$second" != 0 ] && [ "$second" != "$first" ]; then
    ok "systemd started the supervisor again"
  else
    failed "systemd did not start the supervisor again"
  fi
  # The active worker serves on, and the new supervisor asks it for the sockets.
  if within 20 unit_says -q 'took the node over' && [ "$(active)" = "$worker" ]; then
    ok "the new supervisor took the sockets back; worker $worker served on"
  else
    failed "worker $worker did not outlive its supervisor: $(unit_says . | tail -n 8 | tr '\n' '|')"
  fi
  kill_worker "kill after take-back"
  unit_says 'gap ' | while read -r line; do note "unit says: $line"; done || true

  systemctl stop nautilus-node
  local link
  link=$(ip link show unit7)
  if [[ "$link" == *xdp* ]] || pgrep nautilus-worker >/dev/null || [ -e "$NODE" ]; then
    failed "left behind: ${link//$'\n'/ } $(pgrep -a nautilus-worker || true) $(ls "$work")"
  else
    ok "the stopped unit leaves nothing"
  fi
}

check_kernel
check_host
check_refusals
check_lab
check_systemd
closing
