#!/usr/bin/env bash
# Puts Nautilus Edge on a host: programs in a folder of their release, units, users, folders, examples.
#
#   scripts/install.sh [install] [--root DIR] [--from DIR] [--version NAME] [--keep N] [--dry-run]
#   scripts/install.sh verify    [--root DIR]
#   scripts/install.sh uninstall [--root DIR] [--purge] [--stop] [--dry-run]
#
# --root DIR   everything goes below DIR, and nothing of this host is asked or told: for packages, tests
# --from DIR   the folder of the programs; else they are built
# --keep N     releases kept beside the one in use and the one before it (1)
# --purge      configuration, state and users too
#
#   /usr/lib/nautilus/releases/NAME/...    one release, never changed; `sha256sum -c manifest` in it
#   /usr/lib/nautilus/current              -> releases/NAME, changed by one rename: the moment of an upgrade
#   /var/lib/nautilus/manifest             what was installed where; written before it is
#
# Run again after whatever happened: it makes true what is not. Exit codes: 0 done, 1 not done, 2 usage.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# shellcheck source=scripts/install-plan.sh
. "$(dirname "$0")/install-plan.sh"
# shellcheck source=scripts/install-undo.sh
. "$(dirname "$0")/install-undo.sh"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROGRAMS=(nautilus nautilus-audit nautilus-ca nautilus-capture nautilus-control nautilus-front
  nautilus-replay nautilus-supervisor nautilus-worker)
UNITS=(nautilus-control.service nautilus-supervisor@.service)
LIB=/usr/lib/nautilus
CONFIG=/etc/nautilus
STATE=/var/lib/nautilus

usage() {
  say "usage: $0 [install|verify|uninstall] [--root DIR] [--from DIR] [--version NAME] [--keep N]" \
    "[--dry-run] [--purge] [--stop]"
  exit 2
}

verb=install root='' from='' version='' keep=1 dry_run=false purge=false stop=false
case "${1:-}" in
  install | verify | uninstall) verb=$1 && shift ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
    --root | --from | --version | --keep)
      [ $# -ge 2 ] && [ -n "$2" ] || usage
      case "$1" in
        --root) root=$2 ;;
        --from) from=$2 ;;
        --version) version=$2 ;;
        --keep) keep=$2 ;;
      esac
      shift
      ;;
    --dry-run) dry_run=true ;;
    --purge) purge=true ;;
    --stop) stop=true ;;
    *) usage ;;
  esac
  shift
done
[[ "$keep" =~ ^[0-9]{1,3}$ ]] || usage
[[ "$version" =~ ^([a-z0-9][a-z0-9_.-]{0,62})?$ ]] || die "--version $version: [a-z0-9] first, then [a-z0-9_.-], at most 63 in all"
if [ -n "$root" ]; then
  [ -d "$root" ] || die "--root $root: no such folder"
  root=$(cd "$root" && pwd -P)
  [ "$root" != / ] || root=''
fi
staging=false
[ -z "$root" ] || staging=true
MANIFEST=$root$STATE/manifest

# --- what this host must have ------------------------------------------------------------------

preflight() {
  local tool
  for tool in install sha256sum flock readlink; do
    command -v "$tool" >/dev/null || die "$tool was not found; it is of coreutils or util-linux"
  done
  $staging && return
  is_root || $dry_run || die "a host is changed by root alone; --root DIR stages without"
  [ "$(uname -m)" = x86_64 ] || die "this is $(uname -m): the programs are for x86_64"
  kernel_at_least 6 1 || die "kernel $(uname -r) is below 6.1, where no node can run; nothing was changed"
  [ -d /run/systemd/system ] || die "systemd does not run here, and nodes are its units; --root DIR stages without"
  local limit
  while read -r limit; do [ -z "$limit" ] || say "note: $limit"; done < <(host_limits)
}

# One installation at a time. The lock is the folder itself: nothing is left.
lock() {
  exec 9<"$root$STATE"
  flock -n 9 || die "another install.sh is at work on $root$STATE"
}

# A package's users are made where it is unpacked, by sysusers.d.
may_make_users() { ! $staging || { is_root && [ -e "$root/etc/passwd" ]; }; }

make_users() {
  may_make_users || return 0
  local user
  for user in nautilus nautilus-control; do
    id_of passwd "$user" >/dev/null && continue
    if command -v systemd-sysusers >/dev/null; then
      change "user $user (systemd-sysusers)" \
        systemd-sysusers ${root:+--root="$root"} nautilus.conf
    else
      change "user $user (useradd)" useradd ${root:+--prefix "$root"} --system --user-group \
        --no-create-home --home-dir / --shell /usr/sbin/nologin "$user"
    fi
    $dry_run || id_of passwd "$user" >/dev/null || die "user $user could not be made"
  done
}

# Makes true what an entry says and is not.
apply() {
  local kind=$1 mode=$2 owner=$3 path=$4 source=$5 full=$root$4
  case "$kind" in
    folder)
      if [ ! -d "$full" ]; then
        change "folder $path ($mode, $owner)" make_folder "$mode" "$owner" "$full"
      elif records folder "$path" && { [ "$(stat -c %a "$full")" != "$mode" ] || ! owner_is "$owner" "$full"; }; then
        change "folder $path is to be $mode, $owner" mend_folder "$mode" "$owner" "$full"
      fi
      ;;
    file)
      cmp -s "$source" "$full" && [ "$(stat -c %a "$full")" = "$mode" ] ||
        change "file $path" put "$mode" "$source" "$full"
      ;;
    example)
      if [ ! -e "$full" ] || [ "$(sum "$full")" = "$(old_sum "$path")" ] || cmp -s "$source" "$full"; then
        cmp -s "$source" "$full" || change "example $path" put "$mode" "$source" "$full"
      elif ! cmp -s "$source" "$full.$version"; then
        # Somebody made it theirs.
        change "example $path.$version (yours is kept)" put "$mode" "$source" "$full.$version"
      fi
      ;;
    config) [ -e "$full" ] || change "configuration $path" put "$mode" "$source" "$full" ;;
    link) [ "$(readlink "$full" || true)" = "$source" ] || change "link $path -> $source" point "$source" "$full" ;;
  esac
}

apply_all() { # KIND|... PATTERN: the entries of these kinds whose path matches
  local line kind mode owner path source
  for line in "${entries[@]}"; do
    IFS=$'\t' read -r kind mode owner path source <<<"$line"
    [[ "|$1|" == *"|$kind|"* ]] && [[ "$path" =~ $2 ]] || continue
    apply "$kind" "$mode" "$owner" "$path" "$source"
  done
}

# The release folder: whole under another name first.
copy_release() {
  local target=$1 partial=$2 program
  rm -rf "$partial"
  mkdir -m 755 "$partial" "$partial/install"
  for program in "${PROGRAMS[@]}"; do install -m 755 "$from/$program" "$partial/$program"; done
  install -m 755 "$payload/install.sh" "$partial/install/install.sh"
  install -m 644 "$payload"/{lib,install-plan,install-undo}.sh "$partial/install/"
  cp -r --no-preserve=all "$payload/systemd" "$payload/examples" "$partial/install/"
  install -m 644 "$payload/README.md" "$partial/README.md"
  chmod 755 "$partial/install/systemd" "$partial/install/examples"
  (cd "$partial" && find . -type f ! -name manifest | LC_ALL=C sort | xargs sha256sum >manifest)
  chmod 644 "$partial/manifest"
  sync -f "$partial"
  mv -T "$partial" "$target"
}

# in_use RELEASE: whether a process runs a program of it.
in_use() {
  local link
  $staging && return 1
  for link in /proc/[0-9]*/exe; do
    [[ "$(readlink "$link" || true)" != "$LIB/releases/$1/"* ]] || return 0
  done
  return 1
}

# Releases beyond those kept, oldest first; never the one in use, the one before it, or one that runs.
prune() {
  local names name extra
  mapfile -t names < <(cd "$root$LIB/releases" && ls -tr)
  extra=$((${#names[@]} - 2 - keep))
  for name in "${names[@]}"; do
    [ "$extra" -gt 0 ] || return 0
    [ "$name" != "$version" ] && [ "$name" != "$before" ] || continue
    extra=$((extra - 1))
    if in_use "$name"; then
      say "note: release $name runs still and is kept"
    else
      change "old release $name goes" rm -rf "$root$LIB/releases/$name"
    fi
  done
}

release_is_whole() { [ -e "$1/manifest" ] && (cd "$1" && sha256sum --status -c manifest); }

install_all() {
  payload=$HERE
  if [ -z "$from" ]; then
    build_release
    from=$CARGO_TARGET_DIR/release
  fi
  local program text needed free
  for program in "${PROGRAMS[@]}"; do
    [ -x "$from/$program" ] || die "$from/$program: there is no such program"
  done
  text=$("$from/nautilus" --version) || die "$from/nautilus does not run here"
  # Two builds of one version are two releases.
  [ -n "$version" ] || version=${text##* }-$(
    cd "$from" && cat "${PROGRAMS[@]}" "$payload"/{systemd,examples}/* "$payload"/{install,install-plan,install-undo,lib}.sh \
      "$payload/README.md" | sha256sum | cut -c1-8
  )
  before=$(basename "$(readlink "$root$LIB/current" 2>/dev/null || true)")
  printf 'release %s%s, in place of %s\n' "$version" "${root:+ below $root}" "${before:-none}"

  make_plan
  local manifest
  manifest=$(new_manifest | LC_ALL=C sort -u)
  if ! $dry_run; then
    mkdir -p "$root$STATE"
    lock
    needed=$(($(cd "$from" && du -ckL "${PROGRAMS[@]}" | tail -n 1 | cut -f1) + 1024))
    free=$(df -kP "$root$STATE/../.." | awk 'END { print $4 }')
    [ "$free" -gt "$needed" ] || die "room for $free KiB, $needed are needed; nothing was changed"
    # Before the first of it, and with what was: a death leaves nothing unknown.
    write_manifest "$(printf '%s\n%s\n' "$(recorded)" "$manifest" | awk NF | LC_ALL=C sort -u)"
  fi

  local release=$root$LIB/releases/$version
  apply_all folder "^(/usr|/usr/lib|$LIB|$LIB/releases)\$"
  if [ -d "$release" ]; then
    release_is_whole "$release" || die "release $version is there, and is not what its manifest says: move it away"
    (cd "$from" && for program in "${PROGRAMS[@]}"; do cmp -s "$program" "$release/$program" || exit 1; done) ||
      die "release $version is there with other programs: --version gives this one another name"
  else
    $dry_run || rm -rf "$root$LIB/releases"/.*.partial
    change "release $LIB/releases/$version" copy_release "$release" "$root$LIB/releases/.$version.partial"
  fi
  apply_all 'folder' '/usr/'
  apply_all 'file' '(sysusers|tmpfiles)'
  make_users
  apply_all 'folder|example|config' .
  # The moment: until here the old release is in use with its own units, from here on the new one is.
  [ "$(readlink "$root$LIB/current" || true)" = "releases/$version" ] ||
    change "$LIB/current -> releases/$version" point "releases/$version" "$root$LIB/current"
  apply_all 'file|link' .
  remove_obsolete "$manifest"
  if [ -d "$root$LIB/releases" ]; then prune; fi
  $dry_run || write_manifest "$manifest"
  $staging || [ "$changes" -eq 0 ] || change 'systemctl daemon-reload' systemctl daemon-reload
  printf '%d changes\n' "$changes"
  $dry_run || $staging || next_steps
}

# What an older release installed and this one has not.
remove_obsolete() {
  local kind path
  while read -r kind _ _ path; do
    case "$kind" in
      file | link) change "$kind $path of an older release goes" rm -f "$root$path" ;;
      example)
        [ "$(sum "$root$path" 2>/dev/null || true)" != "$(old_sum "$path")" ] ||
          change "example $path of an older release goes" rm -f "$root$path"
        ;;
    esac
  done < <(recorded | awk -v new="$1" 'BEGIN { n = split(new, lines, "\n"); for (i = 1; i <= n; i++) { split(lines[i], f, " "); known[f[4]] = 1 } } !($4 in known)')
}

next_steps() {
  local unit
  for unit in $(systemctl list-units --plain --no-legend --state=active 'nautilus-*' | cut -d' ' -f1); do
    case "$unit" in
      nautilus-control*) say "still the old release: systemctl restart $unit" ;;
      *) say "still the old release: systemctl kill --kill-who=main -s KILL $unit (workers serve on and are taken back)" ;;
    esac
  done
}

preflight
case "$verb" in
  install) install_all ;;
  verify) verify ;;
  uninstall) uninstall ;;
esac
