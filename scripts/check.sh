#!/usr/bin/env bash
# The one gate: what passes here may be merged.
#
#   scripts/check.sh            everything
#   scripts/check.sh --quick    without the tests
#
# Of the dependencies it checks what can be known offline: that each has a licence on the list,
# comes from the public registry, and is in the lock file. Whether an advisory was published against one since
# needs the advisory database: `cargo install cargo-deny && cargo deny check advisories`, online.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "== $*"; "$@"; }
step cargo fmt --all --check
step cargo clippy --quiet --locked --all-targets -- -D warnings
# The pages show private items, too, so links to them lead somewhere.
RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' step cargo doc --quiet --locked --no-deps --document-private-items
step scripts/licences.py
step scripts/chaos.sh --self-test
for script in scripts/*.sh .ci/run; do step bash -n "$script"; done
[[ ${1-} == --quick ]] || step scripts/test.sh
