# Checking an installation, and taking it away. Sourced by install.sh, never run.
# shellcheck shell=bash

# What install.sh was told.
: "${root=}" "${staging=false}" "${dry_run=false}" "${purge=false}" "${stop=false}" "${changes=0}"

verify() {
  [ -e "$MANIFEST" ] || die "nothing is installed${root:+ below $root} (no $MANIFEST)"
  local wrong=() kind value mode path full release program
  while read -r kind value mode path; do
    full=$root$path
    case "$kind" in
      folder)
        [ -d "$full" ] || { wrong+=("$path: the folder is gone") && continue; }
        [ "$(stat -c %a "$full")" = "$value" ] || wrong+=("$path: mode $(stat -c %a "$full"), installed with $value")
        owner_is "$mode" "$full" || wrong+=("$path: does not belong to $mode")
        ;;
      file)
        if [ ! -f "$full" ]; then
          wrong+=("$path: is gone")
        elif [ "$(sum "$full")" != "$value" ]; then
          wrong+=("$path: was changed since it was installed")
        elif [ "$(stat -c %a "$full")" != "$mode" ]; then
          wrong+=("$path: mode $(stat -c %a "$full"), installed with $mode")
        fi
        ;;
      link) [ "$(readlink "$full" || true)" = "$value" ] || wrong+=("$path: does not lead to $value") ;;
      config) [ -f "$full" ] || wrong+=("$path: is gone") ;;
      user) may_make_users && { id_of passwd "$path" >/dev/null || wrong+=("user $path: is gone"); } ;;
    esac
  done < <(recorded)
  # Twice with different sums: an upgrade that was cut short.
  recorded | awk '$1 == "file" || $1 == "link" { if ($4 in seen) exit 1; seen[$4] = 1 }' ||
    wrong+=("an installation was not finished: run install.sh again")
  release=$root$LIB/current
  if [ ! -e "$release/manifest" ]; then
    wrong+=("$LIB/current: leads to no release")
  else
    while read -r program; do wrong+=("$LIB/current: $program"); done < <(cd "$release" && sha256sum --quiet -c manifest 2>/dev/null)
  fi
  printf '%s\n' "${wrong[@]}"
  [ ${#wrong[@]} -eq 0 ] || die "${#wrong[@]} wrong${root:+ below $root}"
  printf 'release %s, %d entries and %d files of it: all as installed\n' "$(basename "$(readlink "$release")")" \
    "$(recorded | wc -l)" "$(wc -l <"$release/manifest")"
}

stop_units() {
  local units
  units=$(systemctl list-units --plain --no-legend --state=active,activating 'nautilus-control.service' \
    'nautilus-supervisor@*' | cut -d' ' -f1 | tr '\n' ' ')
  if [ -n "$units" ] && ! $stop; then die "these run: $units- stop them first, or say --stop; nothing was changed"; fi
  # shellcheck disable=SC2086 # one word a unit
  [ -z "$units" ] || change "stop ${units% }" systemctl stop $units
  units=$(cd /etc/systemd/system && find . -type l \( -name 'nautilus-supervisor@*.service' -o -name nautilus-control.service \) -printf '%f ')
  # shellcheck disable=SC2086
  [ -z "$units" ] || change "disable ${units% }" systemctl --quiet disable $units
}

remove_users() {
  local user
  for user in $(recorded | awk '$1 == "user" { print $4 }'); do
    id_of passwd "$user" >/dev/null || continue
    change "user $user goes" userdel ${root:+--prefix "$root"} "$user"
    if id_of group "$user" >/dev/null; then change "group $user goes" groupdel ${root:+--prefix "$root"} "$user"; fi
  done
}

# Folders of the manifest, the deepest first; what holds something of another stays, and is said.
folders() { recorded | awk '$1 == "folder" && !seen[$4]++ { print $4 }' | LC_ALL=C sort -r; }
remove_folders() { # PATTERN of those that stay, LIST
  local path
  while read -r path; do
    [[ ! "$path" =~ $1 ]] && [ -d "$root$path" ] || continue
    if $dry_run || [ -z "$(ls -A "$root$path")" ]; then
      change "folder $path goes" rmdir "$root$path"
    else
      case "$path" in "$LIB"* | "$CONFIG"*) say "note: $path stays, it holds $(ls -A "$root$path" | head -n 3 | tr '\n' ' ')" ;; esac
    fi
  done <<<"$2"
}

uninstall() {
  [ -e "$MANIFEST" ] || { say "nothing is installed${root:+ below $root}" && exit 0; }
  $dry_run || lock
  $staging || stop_units
  local kind value path name
  while read -r kind value _ path; do
    rm_partial "$path"
    case "$kind" in
      file | link) [ ! -e "$root$path" ] && [ ! -L "$root$path" ] || change "$kind $path goes" rm -f "$root$path" ;;
      example)
        if [ "$(sum "$root$path" 2>/dev/null || true)" = "$value" ]; then
          change "example $path goes" rm -f "$root$path"
        fi
        ;;
    esac
  done < <(recorded)
  $staging || change 'systemctl daemon-reload' systemctl daemon-reload
  [ ! -L "$root$LIB/current" ] || change "$LIB/current goes" rm -f "$root$LIB/current"
  rm_partial "$LIB/current"
  for name in "$root$LIB/releases"/* "$root$LIB/releases"/.*.partial; do
    if [ -e "$name/manifest" ] || [[ "$name" == */.*.partial && -d "$name" ]]; then
      change "release $(basename "$name") goes" rm -rf "$name"
    fi
  done
  if $purge; then
    change "$CONFIG and $STATE go, with all in them" purge_data
    remove_users
    remove_folders '^/var' "$(folders)"
    local list
    list=$(folders)
    # The last file: until then a second run knows what is left.
    $dry_run || write_manifest ''
    remove_folders '^/(usr|etc)' "$list"
  else
    remove_folders "^(/etc|/var|/var/lib|$CONFIG|$CONFIG/nodes|$STATE.*)\$" "$(folders)"
    # What stays is still ours to purge.
    local rest
    rest=$(recorded | awk -v etc="^$CONFIG(/nodes)?\$|^/etc\$|^/var" '$1 == "config" || $1 == "user" || ($1 == "folder" && $4 ~ etc)')
    $dry_run || write_manifest "$rest"
  fi
  printf '%d changes\n' "$changes"
}

rm_partial() { $dry_run || rm -f "$root$1.partial"; }

# All but the manifest, which says what is left.
purge_data() {
  rm -rf "$root$CONFIG"
  find "$root$STATE" -mindepth 1 ! -path "$MANIFEST" -delete
}
