#!/usr/bin/env bash
# Shows that the tests catch deliberate breaks: each patch in this folder is one break of an invariant or of an important
# rule (its first line says which). The tests must fail with it, and the tree must build with it.
#
# Usage: run.sh [--scenarios] [NAME…]    names of patches without .patch; all of them without a name
# Without --scenarios by unit tests and planner sequences, or by the tests that the second line of a patch names instead; with it
# by the scenario on the real control plane that the second line names.
# SEEDS: random orders of each case (20). LIMIT: seconds that the tests may take with one patch (600).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(git -C "$here" rev-parse --show-toplevel)
work=$top/target/planted
tree=$work/tree log=$work/log
export CARGO_TARGET_DIR=$work/build SEEDS=${SEEDS:-20}
limit=${LIMIT:-600}
sequences=(--package meshupgrade-sequences --test sequences)
core=(--package meshupgrade-core --lib --tests)
# What `build` returns, unlike any result of tests.
does_not_build=3
child='' name='' about='' out='' caught=0 missed=() broken=()

die() {
  echo "$*" >&2
  exit 1
}

# Also after an interruption: nothing goes on in the background, and no patched tree is left. The build stays, as a cache.
clean_up() {
  trap - EXIT
  [ -z "$child" ] || kill "$child" 2>/dev/null || true
  rm -rf "$tree"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Runs a command for a limited time. In the background, so that a signal is acted on at once.
bounded() {
  local code=0
  timeout --kill-after=5 "$1" "${@:2}" &
  child=$!
  wait "$child" || code=$?
  child=''
  return "$code"
}

copy_tree() {
  rm -rf "$tree"
  mkdir -p "$tree" "$log"
  (cd "$top" && git ls-files -z --cached --others --exclude-standard |
    xargs -0 cp --parents --target-directory "$tree")
  cd "$tree"
}

# Every patch must apply before the first one is tried: a stale one is told after seconds, not after minutes.
all_apply() {
  local stale=0
  for patch in "$@"; do
    [ -f "$patch" ] || die "there is no $patch"
    if ! patch --dry-run --batch --forward --strip=1 <"$patch" >"$log/apply.log" 2>&1; then
      echo "$(basename "$patch") does not apply:"
      sed 's/^/  /' "$log/apply.log"
      stale=$((stale + 1))
    fi
  done
  [ "$stale" -eq 0 ] || die "$stale patches do not apply: make them again against this tree"
}

build() {
  bounded 1200 cargo test --quiet --locked --no-run "$@" >"$out" 2>&1 || return "$does_not_build"
}

run_some() {
  bounded "$limit" cargo test --quiet --locked --no-fail-fast "$@" >"$out" 2>&1
}

# The tests that a patch names: what `cargo test` is to build and run.
tests_of() {
  sed -n '2s/^# tests: //p' "$1"
}

# The tests of a patch. Where it names none, those first that are fast to build and to run: the next ones only where nothing
# failed yet. Left out are `seeds::report`, which judges nothing, and the exhaustive faults, which take longer than all the rest:
# random orders have faults too.
run_tests() {
  local named
  read -ra named <<<"$(tests_of "$1")"
  if [ ${#named[@]} -gt 0 ]; then
    build "${named[@]}" || return
    run_some "${named[@]}"
    return
  fi
  build "${sequences[@]}" || return
  run_some "${sequences[@]}" -- fakes:: ordered:: seeds::seeds || return
  run_some "${sequences[@]}" -- points:: faults::storms || return
  build "${core[@]}" || return
  run_some "${core[@]}"
}

# The scenario of a patch: test binary and test.
scenario_of() {
  sed -n '2s/^# scenario: //p' "$1"
}

run_scenario() {
  local binary test
  read -r binary test < <(scenario_of "$1")
  # The operator by itself: the scenario starts what cargo built last.
  build --package meshupgrade-e2e --test "$binary" || return
  bounded 1200 cargo build --quiet --locked --package meshupgrade-operator >"$out" 2>&1 || return "$does_not_build"
  run_some --package meshupgrade-e2e --test "$binary" -- --exact "$test"
}

# Which tests failed (four of them), and the first rule that one of them names.
told() {
  local by more rule
  by=$(sed -nE 's/^---- (.*) stdout ----$/\1/p' "$out" | sort -u)
  more=$(($(wc -w <<<"$by") - 4))
  by=$(head -n 4 <<<"$by" | paste -sd ' ')
  rule=$(grep -oE -m 1 'I[0-9]+: .*' "$out" | sed 's/\\n.*//' || true)
  [ -n "$rule" ] || rule=$(grep -A 2 -m 1 'panicked at e2e' "$out" | tail -n +2 | paste -sd ' ' || true)
  [ "$more" -le 0 ] || by+=" and $more more"
  printf '        by %s\n' "${by:-nothing that has a name: see $out}"
  [ -z "$rule" ] || printf '        %s\n' "${rule:0:150}"
}

try() {
  local code=0 begun=$SECONDS
  name=$(basename "$1" .patch)
  about=$(sed -n '1s/^# //p' "$1")
  out=$log/$name.log
  patch --quiet --batch --forward --strip=1 <"$1"
  "$run" "$1" || code=$?
  report "$code" $((SECONDS - begun))
  patch --quiet --batch --strip=1 --reverse <"$1"
}

report() {
  local word=caught
  case $1 in
    0) word=MISSED && missed+=("$name") ;;
    "$does_not_build") word=BROKEN && broken+=("$name") ;;
    *) caught=$((caught + 1)) ;;
  esac
  printf '%s  %-30s %s (%s s)\n' "$word" "$name" "$about" "$2"
  case $1 in
    0) ;;
    "$does_not_build") grep -E -A 8 '^error' "$out" | head -n 30 || true ;;
    124 | 137) echo "        by the limit: no end after $limit s" ;;
    *) told ;;
  esac
}

command -v patch >/dev/null || die "patch is missing: install it (Debian: apt-get install patch)"
run=run_tests
if [ "${1:-}" = --scenarios ]; then
  run=run_scenario
  shift
fi
patches=("$here"/*.patch)
[ "$run" = run_tests ] || mapfile -t patches < <(grep -l '^# scenario: ' "${patches[@]}")
[ $# -eq 0 ] || patches=("${@/%/.patch}")
[ $# -eq 0 ] || patches=("${patches[@]/#/$here/}")
copy_tree
all_apply "${patches[@]}"

# A test that fails anyway catches nothing. The scenarios without a patch are `make e2e`.
if [ "$run" = run_tests ]; then
  out=$log/unpatched.log
  # Of each kind of tests, those of one patch that is not applied.
  declare -A kinds=()
  for patch in "${patches[@]}"; do kinds[tests:$(tests_of "$patch")]=$patch; done
  for patch in "${kinds[@]}"; do
    run_tests "$patch" || die "without a patch the tests of $(basename "$patch") fail or do not build: see $out"
  done
  echo "without a patch all tests pass (build and tests: $SECONDS s)"
fi

for patch in "${patches[@]}"; do
  try "$patch"
done
echo "$caught of ${#patches[@]} breaks caught in $SECONDS s; missed: ${missed[*]:-none}; do not build: ${broken[*]:-none}"
[ "$caught" -eq ${#patches[@]} ]
