# Sourced by the other scripts: servers on free ports that die with the script that started them.
#
#   start_redis NAME [ARGUMENT…]     a redis-server; its port is in $STARTED
#   start_redis_cluster              three masters; their ports are in ${REDIS_PORTS[@]}
#   start_kvorum BINARY N R W COUNT  so many nodes; their ports are in ${KVORUM_PORTS[@]}

SCRATCH=$(mktemp -d)
PIDS=()

stop_all() {
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$SCRATCH"
}
trap stop_all EXIT

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

need() { command -v "$1" >/dev/null || die "$1 is missing"; }

# Whether nobody listens on a port now.
is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port for clients such that the ports 10,000 above and 10,001 above are free, too.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((11000 + 2 * (RANDOM % 5000)))
    if is_free "$port" && is_free $((port + 10000)) && is_free $((port + 1)); then
      echo "$port"; return
    fi
  done
  die "no free port"
}

# Waits until a server on a port says a word in answer to a command.
await() { # seconds port word command…
  local seconds=$1 port=$2 word=$3; shift 3
  for _ in $(seq $((seconds * 10))); do
    [[ $(redis-cli -p "$port" "$@" 2>/dev/null) == *"$word"* ]] && return
    sleep 0.1
  done
  return 1
}

start_redis() { # name, arguments…
  local name=$1 port pid; shift
  need redis-server; need redis-cli
  for _ in 1 2 3 4 5; do
    port=$(free_port)
    mkdir -p "$SCRATCH/$name-$port"
    redis-server --port "$port" --bind 127.0.0.1 --dir "$SCRATCH/$name-$port" --save '' \
      --appendonly no --logfile log "$@" >/dev/null 2>&1 &
    pid=$!
    if await 5 "$port" PONG PING && kill -0 "$pid" 2>/dev/null; then
      PIDS+=("$pid"); STARTED=$port; return
    fi
    kill "$pid" 2>/dev/null || true
  done
  die "redis-server does not start"
}

start_redis_cluster() {
  REDIS_PORTS=()
  for name in one two three; do
    start_redis "$name" --cluster-enabled yes; REDIS_PORTS+=("$STARTED")
  done
  redis-cli --cluster create "${REDIS_PORTS[@]/#/127.0.0.1:}" --cluster-yes >/dev/null
  for port in "${REDIS_PORTS[@]}"; do
    await 20 "$port" cluster_state:ok CLUSTER INFO || die "the Redis cluster does not form"
  done
}

start_kvorum() { # binary n r w count
  local binary=$1 n=$2 r=$3 w=$4 count=$5 members='' port
  need redis-cli
  KVORUM_PORTS=()
  for id in $(seq "$count"); do
    port=$(free_port)
    while [[ " ${KVORUM_PORTS[*]} " == *" $port "* ]]; do port=$(free_port); done
    KVORUM_PORTS+=("$port")
    members+="${members:+,}$id=127.0.0.1:$port@$((port + 10000))"
  done
  for id in $(seq "$count"); do
    port=${KVORUM_PORTS[id - 1]}
    "$binary" server --node-id "$id" --port "$port" --peer-port $((port + 10000)) \
      --members "$members" --secret 'a secret of the scripts' --data-dir "$SCRATCH/kvorum-$id" \
      --n "$n" --r "$r" --w "$w" >"$SCRATCH/kvorum-$id.log" 2>&1 &
    PIDS+=("$!")
  done
  for id in $(seq "$count"); do
    await 30 "${KVORUM_PORTS[id - 1]}" cluster_state:ok CLUSTER INFO && continue
    cat "$SCRATCH/kvorum-$id.log" >&2
    die "node $id does not become ready"
  done
}
