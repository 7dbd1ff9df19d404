#!/usr/bin/env bash
# What vm.sh runs inside its virtual machine, as a systemd service: one `ok:` or `FAILED:` line a
# check, and `closing: all checks passed` when none failed.
set -euo pipefail

PATH=/opt/nautilus:$PATH
work=/run/nautilus-guest
mkdir -p "$work"
failures=0

ok() { echo "ok: $*"; }
note() { echo "note: $*"; }
failed() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# node_file INTERFACE: the smallest node file that serves echo on it.
node_file() {
  cat <<NODE
[node]
id = "guest"
run_dir = "$work/node"
[port]
kind = "xdp"
[[interface]]
name = "$1"
queues = [0]
[access]
sources = ["198.18.0.0/15"]
[echo]
port = 7007
NODE
}

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
  note "kernel $(uname -r), systemd $(systemctl --version | head -n 1 | cut -d' ' -f2)"
  local file="$work/check.toml"
  node_file eth0 >"$file"
  timeout 60 nautilus-supervisor --config "$file" --check >"$work/check.log" 2>&1 || true
  while read -r line; do note "$line"; done <"$work/check.log"
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
      while read -r line; do note "node1 says: $line"; done
  else
    failed "lab up: $(tail -n 5 "$work/lab.log")"
  fi
  timeout 120 nautilus-lab down || failed "lab down"
}

check_systemd() {
  ip link add unit7 type veth peer name unit7p
  ip address add 198.18.7.1/24 dev unit7
  ip link set unit7 up
  ip link set unit7p up
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
  sleep 10
  local first second workers kept
  first=$(systemctl show -p MainPID --value nautilus-node)
  if [ "$first" = 0 ]; then
    failed "the unit did not start: $(journalctl -u nautilus-node -n 5 -o cat)"
    return
  fi
  workers=$(pgrep nautilus-worker || true)
  kill -9 "$first"
  sleep 10
  second=$(systemctl show -p MainPID --value nautilus-node)
  if [ "$second" != 0 ] && [ "$second" != "$first" ]; then
    ok "systemd started the supervisor again"
  else
    failed "systemd did not start the supervisor again"
  fi
  # The active worker serves on, and the new supervisor asks it for the sockets.
  kept=$(comm -12 <(sort <<<"$workers") <(pgrep nautilus-worker | sort) | tr '\n' ' ')
  if [ -n "${kept// /}" ]; then
    ok "the new supervisor took the sockets back; worker ${kept% } served on"
  else
    failed "no worker outlived its supervisor: $(journalctl -u nautilus-node -n 8 -o cat | tr '\n' '|')"
  fi
  journalctl -u nautilus-node -o cat | grep -i 'take\|took\|6\.[46]\|kernel' | head -n 8 |
    while read -r line; do note "unit says: $line"; done
  systemctl stop nautilus-node
}

check_kernel
check_refusals
check_lab
check_systemd
if [ "$failures" -eq 0 ]; then echo "closing: all checks passed"; else echo "closing: $failures failed"; fi
