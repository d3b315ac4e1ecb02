#!/usr/bin/env bash
# Replays the transcripts marked @redis or @redis-cluster against a real redis-server, and fails
# on any difference: so the blessed answers are Redis's own.
#
#   scripts/bless.sh            check
#   scripts/bless.sh --write    put Redis's answers into the files (read the diff before you commit)
set -euo pipefail
cd "$(dirname "$0")/.."

command -v redis-server >/dev/null || { echo "bless: redis-server is missing" >&2; exit 1; }

dir=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap finish EXIT

# Starts one redis-server on a port that is free (with cluster-enabled also port + 10000 must be).
start() { # name, arguments…
  local name=$1 port; shift
  for _ in 1 2 3 4 5 6 7 8; do
    port=$((12000 + RANDOM % 20000))
    mkdir -p "$dir/$name-$port"
    redis-server --port "$port" --bind 127.0.0.1 --dir "$dir/$name-$port" --save '' \
      --appendonly no --logfile log "$@" >/dev/null 2>&1 &
    local pid=$!
    for _ in $(seq 50); do
      if [[ $(redis-cli -p "$port" PING 2>/dev/null) == PONG ]] && kill -0 "$pid" 2>/dev/null; then
        pids+=("$pid"); STARTED=$port; return
      fi
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
  done
  echo "bless: redis-server does not start" >&2; exit 1
}

start plain; plain=$STARTED
start cluster --cluster-enabled yes; cluster=$STARTED
redis-cli -p "$cluster" CLUSTER ADDSLOTSRANGE 0 16383 >/dev/null
for _ in $(seq 100); do
  [[ $(redis-cli -p "$cluster" CLUSTER INFO) == *cluster_state:ok* ]] && break
  sleep 0.1
done

cargo test --quiet --test bless -- "127.0.0.1:$plain" "127.0.0.1:$cluster" "$@"
