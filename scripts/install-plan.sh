# What install.sh puts where, the manifest of it, and single changes. Sourced by install.sh, never run.
# shellcheck shell=bash

# What install.sh was told.
: "${root=}" "${payload=}" "${dry_run=false}" "${version=}"

changes=0
# change WORDS COMMAND...: says it, and does it unless only asked what would be done.
change() {
  local words=$1
  shift
  changes=$((changes + 1))
  printf '%s %s\n' "$($dry_run && echo 'would' || echo '  ')" "$words"
  $dry_run || "$@"
}

id_of() { # passwd|group NAME: its number below the root
  local file=$root/etc/$1
  [ -r "$file" ] || return 1
  awk -F: -v name="$2" '$1 == name { print $3; found = 1; exit } END { exit !found }' "$file"
}

# own USER[:GROUP] PATH: by numbers of the root's own lists. A package's folders are root's until
# systemd-tmpfiles has run.
own() {
  local user group
  is_root || return 0
  user=$(id_of passwd "$1") && group=$(id_of group "$1") || return 0
  chown -h "$user:$group" "$2"
}

owner_is() {
  local user
  is_root || return 0
  user=$(id_of passwd "$1") || return 0
  [ "$(stat -c %u "$2")" = "$user" ]
}

make_folder() { mkdir -m "$1" "$3" && own "$2" "$3"; }
mend_folder() { own "$2" "$3" && chmod "$1" "$3"; }

# put MODE SOURCE PATH: beside it first, then renamed.
put() {
  install -m "$1" "$2" "$3.partial"
  sync "$3.partial"
  mv -T "$3.partial" "$3"
}

point() { # TARGET PATH
  rm -f "$2.partial"
  ln -s "$1" "$2.partial"
  mv -T "$2.partial" "$2"
}

sum() { sha256sum <"$1" | cut -d' ' -f1; }

# The plan: KIND MODE OWNER PATH SOURCE, one a line.
entries=()
entry() { entries+=("$(printf '%s\t%s\t%s\t%s\t%s' "$@")"); }

# A folder, and those above it that are not there.
folder_entry() {
  local mode=$1 owner=$2 path=$3 above
  above=$(dirname "$path")
  if [ "$above" != / ] && { [ ! -d "$root$above" ] || is_bare "$above"; }; then folder_entry 755 root "$above"; fi
  local known
  for known in "${entries[@]}"; do
    [[ "$known" != folder$'\t'*$'\t'"$path"$'\t'* ]] || return 0
  done
  entry folder "$mode" "$owner" "$path" -
}

make_plan() {
  local unit file
  folder_entry 755 root "$LIB/releases"
  folder_entry 755 root "$CONFIG"
  folder_entry 755 root "$CONFIG/nodes"
  folder_entry 755 root "$CONFIG/examples"
  folder_entry 755 root "$STATE"
  folder_entry 700 nautilus-control "$STATE/control"
  folder_entry 750 nautilus "$STATE/capture"
  for file in /usr/bin /usr/lib/systemd/system /usr/lib/sysusers.d /usr/lib/tmpfiles.d; do
    [ -d "$root$file" ] || folder_entry 755 root "$file"
  done
  entry file 644 root /usr/lib/sysusers.d/nautilus.conf "$payload/systemd/sysusers.conf"
  entry file 644 root /usr/lib/tmpfiles.d/nautilus.conf "$payload/systemd/tmpfiles.conf"
  for file in "$payload"/examples/*.toml; do
    entry example 644 root "$CONFIG/examples/$(basename "$file")" "$file"
  done
  entry config 644 root "$CONFIG/control.toml" "$payload/examples/control.toml"
  for unit in "${UNITS[@]}"; do
    entry file 644 root "/usr/lib/systemd/system/$unit" "$payload/systemd/$unit"
  done
  entry link - root /usr/bin/nautilus ../lib/nautilus/current/nautilus
}

# The manifest's line of one entry: what is needed to check it and to take it away.
line_of() {
  local kind=$1 mode=$2 owner=$3 path=$4 source=$5
  case "$kind" in
    folder) printf 'folder %s %s %s\n' "$mode" "$owner" "$path" ;;
    link) printf 'link %s - %s\n' "$source" "$path" ;;
    *) printf '%s %s %s %s\n' "$kind" "$(sum "$source")" "$mode" "$path" ;;
  esac
}

# What is installed, or was begun to be: whatever happens next, uninstall finds it.
recorded() { if [ -e "$MANIFEST" ]; then cat "$MANIFEST"; fi; }

write_manifest() {
  if [ "$1" = "$(recorded)" ]; then return; fi
  if [ -z "$1" ]; then
    rm -f "$MANIFEST" "$MANIFEST.partial"
    return
  fi
  printf '%s\n' "$1" >"$MANIFEST.partial"
  chmod 644 "$MANIFEST.partial"
  sync "$MANIFEST.partial"
  mv -T "$MANIFEST.partial" "$MANIFEST"
}

# records KIND PATH: whether the manifest has it.
records() { recorded | awk -v kind="$1" -v path="$2" '$1 == kind && $4 == path { found = 1 } END { exit !found }'; }
old_sum() { recorded | awk -v path="$1" '$1 == "example" && $4 == path { sum = $2 } END { print sum }'; }

# Whether a folder of the manifest's own path holds nothing but that path: a dead install.sh made it, before
# it could say so.
is_bare() {
  case "$MANIFEST" in
    "$root$1"/*) [ -z "$(find "$root$1" ! -type d ! -path "$MANIFEST.partial" -print -quit)" ] ;;
    *) false ;;
  esac
}

# The manifest after this installation, lines perhaps twice. Folders and users that were there before are nobody's to remove.
new_manifest() {
  local line kind mode owner path source user
  for line in "${entries[@]}"; do
    IFS=$'\t' read -r kind mode owner path source <<<"$line"
    if [ "$kind" != folder ] || [ ! -d "$root$path" ] || records folder "$path" || is_bare "$path"; then
      line_of "$kind" "$mode" "$owner" "$path" "$source"
    fi
  done
  # Those of an earlier run: they are there, and no plan of this one names them again.
  recorded | awk '$1 == "folder"'
  for user in nautilus nautilus-control; do
    if records user "$user" || { ! id_of passwd "$user" >/dev/null && may_make_users; }; then
      echo "user - - $user"
    fi
  done
}
