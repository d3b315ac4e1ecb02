#!/usr/bin/env bash
# Kvorum against Debian's redis-server on this machine, in turns, as Markdown tables.
#
#   scripts/bench.sh                        everything, about half an hour
#   scripts/bench.sh --quick                the same in a few minutes, noisier
#   scripts/bench.sh --only one,three,memory --rounds 7 --output docs/bench.md
#   scripts/bench.sh --kvorum target/quick/kvorum --kvorum-args '--threads 1'
#
# See scripts/bench.py --help for every option. Needs redis-server, redis-tools and python3.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in cargo python3 redis-server redis-cli redis-benchmark; do
  command -v "$program" >/dev/null || { echo "bench.sh: $program is missing" >&2; exit 1; }
done
[[ " $* " == *' --kvorum '* || " $* " == *' --help '* ]] || cargo build --release --locked --bin kvorum
[[ " $* " == *' --help '* ]] || cargo build --release --locked --example wait_load
exec python3 scripts/bench.py "$@"
