#!/usr/bin/env bash
# Every check of the repository, in order of cost; the last line is `N passed, N failed, N skipped`.
#
#   scripts/test.sh [--long] [STAGE...]      stages: see STAGES below; default all of them
#
# --long runs the shows whole (1,000 kills, 60 s without control) instead of scaled down.
# Logs and one JUnit XML file a stage are left in <target>/test/. A check that cannot run here
# prints a line `SKIPPED what: why`; those lines are repeated and counted at the end. A skip for want
# of the real inputs, while their folder is there, is a failure.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

STAGES=(packages fmt clippy shellcheck unit loom miri privileged readme bench)
OUT="$CARGO_TARGET_DIR/test"
# Real inputs that lie beside the repository, not in it; tests that need them skip without.
export NAUTILUS_DATA=${NAUTILUS_DATA:-$ROOT/../shared/data}
export RUST_BACKTRACE=1

selected=()
for argument in "$@"; do
  case "$argument" in
    --long) export NAUTILUS_LONG=1 ;;
    -*) die "unknown option $argument; usage: $0 [--long] [${STAGES[*]}]" ;;
    *)
      case " ${STAGES[*]} " in
        *" $argument "*) selected+=("$argument") ;;
        *) die "unknown stage $argument; there are: ${STAGES[*]}" ;;
      esac
      ;;
  esac
done
[ ${#selected[@]} -gt 0 ] || selected=("${STAGES[@]}")

has_nextest() { cargo nextest --version >/dev/null 2>&1; }

# run_tests PROFILE CARGO_ARGUMENTS...: by nextest where it is installed, else by cargo test. The
# profile `privileged` runs the ignored tests, one at a time; `unit` runs the others. The README
# commands are ignored tests with a stage of their own.
run_tests() {
  local profile=$1 status=0
  shift
  if has_nextest; then
    local choice=(--run-ignored default)
    [ "$profile" = unit ] || choice=(--run-ignored only -E 'not binary(readme_commands)')
    cargo nextest run --config-file .ci/nextest.toml --profile "$profile" --no-tests pass \
      "${choice[@]}" "$@" || status=$?
    cp -f "target/nextest/$profile/junit.xml" "$OUT/$profile.xml" 2>/dev/null || true
  else
    local choice=(--show-output)
    [ "$profile" = unit ] || choice+=(--ignored --test-threads=1 --skip readme_blocks_run)
    timeout 2400 cargo test --no-fail-fast "$@" -- "${choice[@]}" || status=$?
  fi
  return "$status"
}

stage_packages() {
  local wanted=("${PACKAGES_BUILD[@]}" "${PACKAGES_LAB[@]}")
  if is_root; then
    install_packages "${wanted[@]}"
    install_packages "${PACKAGES_PEERS[@]}" || echo "SKIPPED peers: not all could be installed"
    fetch_python_client || echo "SKIPPED python-memcached-udp: could not be fetched"
  else
    install_packages "${wanted[@]}" || true
  fi
}

stage_fmt() { cargo fmt --all --check; }

# With and without the feature of the tests that let programs die or err.
stage_clippy() {
  cargo clippy --workspace --all-targets --locked -- -D warnings
  local packages=(-p nautilus-dataplane -p nautilus-tests)
  cargo clippy --locked "${packages[@]}" --all-targets --features nautilus-tests/kill-points -- -D warnings
}

stage_shellcheck() {
  if ! command -v shellcheck >/dev/null; then
    echo "SKIPPED shellcheck: not installed"
    return
  fi
  shellcheck -x --severity=warning scripts/*.sh .ci/run
}

# Unit, conformance, simulation over seeds and tidy tests: everything that needs no privilege.
stage_unit() {
  run_tests unit --workspace --locked
  cargo test --workspace --locked --doc
  # Readers between any two stores, and deaths at any of them: with a feature that no program has.
  cargo test --locked -p nautilus-tests --features kill-points --test simulated_history
}

stage_loom() {
  RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$CARGO_TARGET_DIR/loom" LOOM_MAX_PREEMPTIONS=2 \
    cargo test --locked --release -p nautilus-shm --lib loom
}

stage_miri() {
  if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "SKIPPED miri: no nightly toolchain with miri (rustup +nightly component add miri rust-src)"
    return
  fi
  # An interpreter: what reaches into shared memory, without the exhaustive and the random tests,
  # which run at full speed in stage unit.
  MIRIFLAGS="-Zmiri-disable-isolation" CARGO_TARGET_DIR="$CARGO_TARGET_DIR/miri" \
    timeout 900 cargo +nightly miri test --locked -p nautilus-shm --lib -- \
    cells:: metrics:: seqlock:: shared:: spsc:: sync:: \
    --skip any --skip random --skip kill --skip stop
}

# Tests marked `#[ignore = "privileged: ..."]`: namespaces, XDP, supervisors.
stage_privileged() {
  if ! namespaces_work; then
    echo "SKIPPED privileged tests: they need root and network namespaces"
    return
  fi
  want_tracefs
  cargo build --workspace --locked --bins
  NAUTILUS_BIN_DIR="$CARGO_TARGET_DIR/debug" \
    run_tests privileged --workspace --locked --lib --bins --tests
  # Programs that die at chosen places, see an old kernel or publish in a wrong order: built apart, with
  # a feature that nothing else has.
  cargo test --locked -p nautilus-dataplane --features kill-points --test kill_points --test old_kernel \
    --test run_time_cache_kills \
    -- --test-threads=1 --include-ignored
  cargo test --locked -p nautilus-tests --features kill-points --test misorder -- --include-ignored
}

stage_readme() {
  cargo test --locked -p nautilus-tests --test readme_commands -- --ignored --nocapture
}

stage_bench() {
  if [ ! -d bench/src/bin ]; then
    echo "SKIPPED bench: no bench binary yet"
    return
  fi
  scripts/bench.sh --quick A6 B3
}

# Skips of a log whose stated want this machine does not have: the real inputs are there, or root is.
skips_without_excuse() {
  local wants=()
  [ ! -d "$NAUTILUS_DATA" ] || wants+=('NAUTILUS_DATA|no captures in')
  ! namespaces_work || wants+=('needs? root')
  [ ${#wants[@]} -gt 0 ] || return 0
  local pattern
  pattern=$(IFS='|' && echo "${wants[*]}")
  grep -hE "^ *SKIPPED .*($pattern)" "$1" | sed 's/^ *//' || true
}

# Sums a stage's log into the totals. Without test results in it the stage itself is the one check.
passed=0 failed=0 skipped=0
tally() {
  local log=$1 status=$2 p f s bad
  read -r p f < <(awk '
    { gsub(/\033\[[0-9;]*m/, "") }
    /^ *Summary \[.*tests? run:/ {
      if (match($0, /[0-9]+ passed/)) p += substr($0, RSTART, RLENGTH)
      if (match($0, /[0-9]+ failed/)) f += substr($0, RSTART, RLENGTH)
      if (match($0, /[0-9]+ timed out/)) f += substr($0, RSTART, RLENGTH)
    }
    /^test result:/ {
      if (match($0, /[0-9]+ passed/)) p += substr($0, RSTART, RLENGTH)
      if (match($0, /[0-9]+ failed/)) f += substr($0, RSTART, RLENGTH)
    }
    END { print p + 0, f + 0 }' "$log")
  s=$(grep -cE '^ *SKIPPED ' "$log" || true)
  if [ $((p + f)) -eq 0 ]; then
    if [ "$status" -eq 0 ] && [ "$s" -eq 0 ]; then p=1; fi
  else
    # A test that printed why it could not run is no pass.
    p=$((p > s ? p - s : 0))
  fi
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  bad=$(skips_without_excuse "$log")
  if [ -n "$bad" ]; then
    s=$((s - $(wc -l <<<"$bad"))) f=$((f + $(wc -l <<<"$bad")))
    printf 'FAILED, it could have run here: %s\n' "${bad//$'\n'/$'\nFAILED, it could have run here: '}"
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# A JUnit file from libtest's lines, for stages nextest did not run.
write_junit() {
  awk -v stage="$1" '
    function xml(s) { gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); gsub(/"/, "\\&quot;", s); return s }
    { gsub(/\033\[[0-9;]*m/, "") }
    /^ *Running / { suite = $0; sub(/^ *Running /, "", suite); sub(/ \(.*/, "", suite) }
    /^ *Doc-tests / { suite = $0; sub(/^ */, "", suite) }
    /^test .* \.\.\. / {
      name = $0; sub(/^test /, "", name); result = name
      sub(/ \.\.\. .*/, "", name); sub(/.* \.\.\. /, "", result)
      body = result ~ /^ok/ ? "" : result ~ /^ignored/ ? "<skipped/>" : "<failure/>"
      cases = cases sprintf("<testcase classname=\"%s\" name=\"%s\">%s</testcase>\n", xml(suite), xml(name), body)
      n++; if (body == "<failure/>") bad++
    }
    END {
      print "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
      printf "<testsuites><testsuite name=\"%s\" tests=\"%d\" failures=\"%d\">\n%s</testsuite></testsuites>\n", stage, n, bad, cases
    }' "$2" >"$3"
}

limits=$(host_limits)
if [ -n "$limits" ]; then printf 'this machine cannot show: %s\n' "$limits"; fi
mkdir -p "$OUT"
rm -f "$OUT"/*.log "$OUT"/*.xml
need_cargo

for stage in "${selected[@]}"; do
  started=$SECONDS
  printf '\n== %s\n' "$stage"
  log="$OUT/$stage.log"
  status=0
  # Not `... || status=$?`: a tested command runs without errexit, and a stage's first failure
  # would be forgotten.
  set +e
  (set -e; "stage_$stage") </dev/null 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  set -e
  tally "$log" "$status"
  [ -e "$OUT/$stage.xml" ] || write_junit "$stage" "$log" "$OUT/$stage.xml"
  if [ "$status" -eq 0 ]; then word=ok; else word="FAILED (exit $status, log: $log)"; fi
  printf '== %s: %s in %d s\n' "$stage" "$word" $((SECONDS - started))
  if [ "$status" -ne 0 ] && [ "$stage" = packages ]; then break; fi
done

printf '\n'
grep -hoE '^ *SKIPPED .*' "$OUT"/*.log | sed 's/^ *//' || true
printf 'took %d s; logs and JUnit XML in %s\n' "$SECONDS" "$OUT"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
