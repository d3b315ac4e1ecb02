#!/usr/bin/env bash
# The long run of the laws of values: random sequences of commands of every family on entries, beside
# a plain model of what Redis holds; and keys of every type on three replicas that lose, double and
# overtake messages, beside the ideal store. Prints what went wrong, with its seed, and the figures.
#
#   scripts/laws.sh                  100,000 sequences of each family, 20,000 keys of each type
#   scripts/laws.sh 1000 200         so many
set -euo pipefail
cd "$(dirname "$0")/.."

[[ ${1:-} != --help ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0; }
sequences=${1:-100000} keys=${2:-20000}

cargo test --quiet --locked --profile quick --lib --no-run
began=$(date +%s.%N)
status=0
PROPTEST_CASES=$(( (sequences * 256 + 149) / 150 )) cargo test --locked --profile quick --lib -- command::laws || status=1
PROPTEST_CASES=$(( (keys * 256 + 59) / 60 )) cargo test --locked --profile quick --lib -- value::simulation::laws::a_ || status=1
awk -v sequences="$sequences" -v keys="$keys" -v began="$began" -v ended="$(date +%s.%N)" 'BEGIN {
  printf "laws.sh: %d sequences of each family, %d keys of each type, %.0f s\n", sequences, keys,
    ended - began
}'
exit $status
