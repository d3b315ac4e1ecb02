#!/usr/bin/env bash
# kill -9 under load, again and again, on one node and on three: every acknowledged write must be
# there afterwards. Fails at the first that is not, and prints what it held instead.
#
#   scripts/soak.sh                  200 kills of one node (syncing every second, always, and with
#                                    little memory) and 200 of three nodes
#   scripts/soak.sh --kills 1000     more
#   scripts/soak.sh --minutes 5      no story longer than this, however many kills that was
#
# KVORUM_BIN names another program to judge than target/release/kvorum.
set -euo pipefail
cd "$(dirname "$0")/.."

kills=200 minutes=30
while [[ $# -gt 0 ]]; do
  case $1 in
    --kills) kills=$2; shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; [[ $1 == --help ]] && exit 0 || exit 2 ;;
  esac
done

if [[ -z ${KVORUM_BIN-} ]]; then
  cargo build --release --locked --bin kvorum
  KVORUM_BIN=$PWD/target/release/kvorum
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

story() { # test, kills
  local status=0
  KVORUM_BIN=$KVORUM_BIN KVORUM_SOAK_KILLS=$2 KVORUM_SOAK_MINUTES=$minutes \
    cargo test --quiet --locked --test blackbox -- --exact --nocapture \
    "durability::kills::$1" >"$log" 2>&1 || status=$?
  grep '^soak: ' "$log" && [[ $status == 0 ]] && return
  cat "$log"
  echo "soak.sh: FAILED: $1" >&2
  exit 1
}

start=$SECONDS
# Shares; for one node and for three together not less than were asked for.
story a_node_alone_that_syncs_every_second $(((kills + 1) / 2))
story a_node_alone_that_syncs_always $(((kills + 3) / 4))
story a_node_alone_with_little_memory $(((kills + 3) / 4))
story three_nodes_eventual $(((kills + 1) / 2))
story three_nodes_quorum $(((kills + 1) / 2))
echo "soak.sh: passed in $((SECONDS - start)) s"
