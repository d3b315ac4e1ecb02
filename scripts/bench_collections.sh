#!/usr/bin/env bash
# Collections against redis-server's, in turns, as Markdown tables.
#
#   scripts/bench_collections.sh                   everything
#   scripts/bench_collections.sh --quick           the same on a tenth of the data, noisier
#   scripts/bench_collections.sh commands memory   some of: commands memory large
#
# See scripts/bench_collections.py --help for every option. Needs redis-server, redis-tools, python3.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in cargo python3 redis-server redis-cli redis-benchmark; do
  command -v "$program" >/dev/null || { echo "bench_collections.sh: $program is missing" >&2; exit 1; }
done
if [[ " $* " != *' --help '* && " $* " != *' --kvorum '* ]]; then
  cargo build --release --locked --bin kvorum
fi
exec python3 scripts/bench_collections.py "$@"
