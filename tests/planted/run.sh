#!/usr/bin/env bash
# Shows that the tests catch deliberate breaks: each patch in this folder is one break of an invariant or of an important
# rule (its first line says which). The tests must fail with it, and the tree must build with it.
set -euo pipefail
top=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
tree=$top/target/planted/tree
export CARGO_TARGET_DIR=$top/target/planted/build SEEDS=${SEEDS:-20}
packages=(--package meshupgrade-core --package meshupgrade-sequences)

command -v patch >/dev/null || { echo "patch is missing: install it (Debian: apt-get install patch)"; exit 1; }

rm -rf "$tree"
mkdir -p "$tree"
(cd "$top" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory "$tree")
cd "$tree"

caught=0 missed=()
for patch in "$top"/tests/planted/*.patch; do
  name=$(basename "$patch" .patch)
  patch --quiet --strip=1 <"$patch"
  cargo test --quiet --locked --no-run "${packages[@]}" 2>"$tree/build.log" || { cat "$tree/build.log"; echo "$name does not build"; exit 1; }
  if cargo test --quiet --locked "${packages[@]}" >"$tree/test.log" 2>&1; then
    missed+=("$name")
    printf 'MISSED  %-28s %s\n' "$name" "$(head -n 1 "$patch")"
  else
    caught=$((caught + 1))
    by=$(grep -hoE '^(test )?[a-z_:]+( ---)? FAILED' "$tree/test.log" | sort -u | head -n 3 | tr '\n' ' ' || true)
    printf 'caught  %-28s %s  [%s]\n' "$name" "$(head -n 1 "$patch")" "$by"
  fi
  patch --quiet --strip=1 --reverse <"$patch"
done
echo "$caught passed, ${#missed[@]} failed"
[ ${#missed[@]} -eq 0 ]
