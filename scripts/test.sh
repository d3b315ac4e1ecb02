#!/usr/bin/env bash
# Every test there is, from a bare Debian or Ubuntu with cargo to the last assertion: installs what
# is missing, asks Redis whether the blessed transcripts are right, plays real clients, and then
# runs cargo's tests, whose closing lines end the output.
#
#   scripts/test.sh [ARGUMENTS OF CARGO TEST…]
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "test.sh: cargo is missing (https://rustup.rs)" >&2; exit 1; }

missing=()
have() { command -v "$1" >/dev/null || missing+=("${@:2}"); }
have redis-server redis-server
have redis-cli redis-tools
have python3 python3
have node nodejs
have npm npm
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if [[ ${#missing[@]} -gt 0 ]]; then
  echo "test.sh: installing ${missing[*]}"
  sudo=''
  [[ $(id -u) == 0 ]] || sudo=sudo
  $sudo apt-get update -qq
  # Debian would start the redis-server it installs; the tests start their own.
  $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
fi

failed=()
step() { # name, command…
  echo "== $1"
  "${@:2}" || failed+=("$1")
}
step 'build' cargo build --quiet --all-targets
step 'transcripts against Redis' scripts/bless.sh
step 'real clients' scripts/clients.sh
# First, so that the last closing lines are those of the real tests: there are no examples to run yet.
step 'documentation examples' cargo test --quiet --doc
echo '== cargo test'
status=0
cargo test --lib --bins --tests "$@" || status=$?

# Nothing is printed after cargo's own closing lines unless something before them failed.
[[ ${#failed[@]} == 0 ]] || { printf 'test.sh: FAILED before cargo test: %s\n' "${failed[@]}"; exit 1; }
exit "$status"
