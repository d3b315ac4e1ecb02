#!/usr/bin/env bash
# Replays the transcripts marked @redis or @redis-cluster against a real redis-server, and fails
# on any difference: so the blessed answers are Redis's own.
#
#   scripts/bless.sh            check
#   scripts/bless.sh --write    put Redis's answers into the files (read the diff before you commit)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/processes.sh

start_redis plain; plain=$STARTED
start_redis cluster --cluster-enabled yes; cluster=$STARTED
redis-cli -p "$cluster" CLUSTER ADDSLOTSRANGE 0 16383 >/dev/null
await 20 "$cluster" cluster_state:ok CLUSTER INFO || die "a cluster of one does not form"

cargo test --quiet --test bless -- "127.0.0.1:$plain" "127.0.0.1:$cluster" "$@"
