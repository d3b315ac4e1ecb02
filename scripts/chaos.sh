#!/usr/bin/env bash
# Lets things fail on real processes under load, judges what came of it, and prints Markdown.
#
#   scripts/chaos.sh [SECTION…]     all sections, or these
#
#   split-eventual   both sides of a split go on, and merge: nothing lost, totals exact, siblings shown
#   split-quorum     the minority refuses, nothing is stale, histories are linearizable
#   away-stream      a node is killed, and returns: it is sent what was kept for it, no more
#   away-exchange    the same, with too little kept: replicas compare, and send what differs
#   wiped            its folder is removed meanwhile: whole again, and never read as empty
#   old-image        an old copy of its folder is put back
#   pressure         p99 of clients while a node is healed, beside that in quiet
#   detection        how soon a death is seen under load, and whether anybody is wronged
#   loop             random faults, one after the other
#
#   --seconds N      how long the fault of a section lasts (each has its default)
#   --rounds N       how often each section runs
#   --rate N         commands a second of each client (default 12)
#   --healed-by WAYS of stream,exchange,hints, those that pressure measures (default: all)
#   --kvorum BIN     the program to judge (default: builds target/quick/kvorum)
#   --output FILE    writes the Markdown there, too
#   --network KIND   namespaces, relays or loopback (default: the best there may be)
#   --self-test      tests the judges, and starts nothing
#   --keep           leaves the nodes' folders and logs
#
# It exits with 1 if a judge found a breach. Where it may, everything runs in a namespace of its own
# (network, mounts, processes), so nothing that it starts outlives it, whatever happens to it.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=() build=1
for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --self-test) exec python3 scripts/chaos.py --self-test ;;
    --kvorum | --kvorum=*) build=0 ;;
  esac
  arguments+=("$argument")
done
[[ $build == 0 ]] || cargo build --quiet --profile quick --locked --bin kvorum

wish() { [[ " ${arguments[*]} " == *" --network $1"* ]]; }
if wish relays || wish loopback; then exec python3 scripts/chaos.py "${arguments[@]}"; fi

missing=()
command -v ip >/dev/null || missing+=(iproute2)
command -v nft >/dev/null || missing+=(nftables)
# Shifts the clocks of `loop`; without it they stay true.
if [[ -z $(compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1') ]]; then missing+=(libfaketime); fi
if [[ ${#missing[@]} -gt 0 && $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "chaos.sh: installing ${missing[*]}" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

space=(unshare --net --mount --pid --fork --kill-child --mount-proc)
[[ $(id -u) == 0 ]] || space+=(--map-root-user)
# `ip netns` keeps its names in /run/netns: here they are seen by nobody else.
inside='mount -t tmpfs tmpfs /run && mkdir /run/netns && exec env KVORUM_CHAOS_NAMESPACES=1 "$@"'
if "${space[@]}" bash -c 'mount -t tmpfs tmpfs /run && mkdir /run/netns && nft list tables && ip netns add probe' >/dev/null 2>&1; then
  "${space[@]}" bash -c "$inside" chaos python3 scripts/chaos.py "${arguments[@]}" &
  outer=$!
  # unshare itself ignores these; the script inside ends in order, and all that it started with it.
  trap 'kill -TERM $(cat "/proc/$outer/task/$outer/children" 2>/dev/null) 2>/dev/null || true' INT TERM
  trap 'kill -KILL "$outer" 2>/dev/null || true' EXIT
  status=0
  # A signal ends `wait`, not the script inside.
  while kill -0 "$outer" 2>/dev/null; do wait "$outer" && status=0 || status=$?; done
  exit "$status"
fi
echo 'chaos.sh: no namespaces may be made here: nodes talk through relays instead' >&2
exec python3 scripts/chaos.py "${arguments[@]}"
