#!/usr/bin/env bash
# The storage engine against redis-server's append-only file, in turns, as Markdown tables.
#
#   scripts/bench_storage.sh                       everything, about an hour
#   scripts/bench_storage.sh --quick               the same on a tenth of the data, noisier
#   scripts/bench_storage.sh writes restart        some of: writes tiers restart compaction
#   scripts/bench_storage.sh --dir /mnt/disk       where the data goes (default: the temporary folder)
#
# See scripts/bench_storage.py --help for every option. Needs redis-server, redis-tools, python3.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in cargo python3 redis-server redis-cli redis-benchmark; do
  command -v "$program" >/dev/null || { echo "bench_storage.sh: $program is missing" >&2; exit 1; }
done
if [[ " $* " != *' --help '* ]]; then
  [[ " $* " == *' --kvorum '* ]] || cargo build --release --locked --bin kvorum
  [[ " $* " == *' --storage-load '* ]] || cargo build --release --locked --example storage_load
fi
exec python3 scripts/bench_storage.py "$@"
