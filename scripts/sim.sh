#!/usr/bin/env bash
# Simulated clusters, seed after seed: prints how far it is, what went wrong with the command that
# replays it, and at the end the figures. Fails if any seed was wrong.
#
#   scripts/sim.sh 0 100000          the seeds from 0 up to 100,000, on every core
#   scripts/sim.sh 17                one seed, with its trace
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $# -ge 1 && $1 != --help ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }

cargo test --quiet --locked --profile quick --lib --no-run
run=(cargo test --quiet --locked --profile quick --lib -- --exact --nocapture simulation::tests::seeds)

if [[ $# == 1 ]]; then
  SEED=$1 exec "${run[@]}"
fi

from=$1 to=$2 cores=$(nproc)
each=$(((to - from + cores - 1) / cores))
began=$(date +%s.%N)
pids=()
for ((core = 0; core < cores; core++)); do
  first=$((from + core * each))
  last=$((first + each < to ? first + each : to))
  ((first < last)) || continue
  SIM_FROM=$first SIM_TO=$last SIM_EVERY=5000 RUST_BACKTRACE=0 "${run[@]}" 2>&1 |
    grep --line-buffered -E '^(sim:|seed |  replay:|thread)' &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=1; done
awk -v n=$((to - from)) -v began="$began" -v ended="$(date +%s.%N)" \
  'BEGIN { s = ended - began; printf "sim.sh: %d seeds in %.0f s, %.0f seeds/s\n", n, s, n / s }'
exit $status
