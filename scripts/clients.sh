#!/usr/bin/env bash
# Plays one session by every client library of tests/clients, each as plain and as cluster client.
# Installs the libraries under target/clients; fails, and never skips, when one cannot be had.
#
#   scripts/clients.sh                     against three Kvorum nodes (KVORUM_BIN, or a debug build)
#   scripts/clients.sh PLAIN CLUSTER       against whatever serves at these addresses (HOST:PORT)
#   scripts/clients.sh --redis             against redis-server: is the session itself right?
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/processes.sh

home=$PWD/target/clients
mkdir -p "$home"
need python3; need node; need npm; need cargo

install() { # name, log, command…
  local name=$1; shift
  "$@" >"$home/$name.log" 2>&1 || { tail -20 "$home/$name.log" >&2; die "cannot install $name"; }
}

install_python() {
  local wanted=tests/clients/python/requirements.txt
  cmp -s "$wanted" "$home/python/installed.txt" && return
  rm -rf "$home/python"
  python3 -m venv "$home/python" && "$home/python/bin/pip" install -r "$wanted" \
    && cp "$wanted" "$home/python/installed.txt"
}

install_node() {
  local from=tests/clients/node
  mkdir -p "$home/node"
  cmp -s "$from/package-lock.json" "$home/node/installed.json" && return
  cp "$from/package.json" "$from/package-lock.json" "$home/node/"
  (cd "$home/node" && npm ci --no-audit --no-fund) \
    && cp "$from/package-lock.json" "$home/node/installed.json"
}

install redis-py install_python
install npm install_node
install redis-rs cargo build --locked --manifest-path tests/clients/redis-rs/Cargo.toml \
  --target-dir "$home/redis-rs"

case ${1-} in
  --redis)
    start_redis plain; plain=127.0.0.1:$STARTED
    start_redis_cluster; cluster=127.0.0.1:${REDIS_PORTS[0]} ;;
  '')
    [[ -n ${KVORUM_BIN-} ]] || cargo build --quiet
    start_kvorum "${KVORUM_BIN-${CARGO_TARGET_DIR-target}/debug/kvorum}" 3 1 2 3
    # Not the first: a plain client may talk to any node.
    plain=127.0.0.1:${KVORUM_PORTS[1]} cluster=127.0.0.1:${KVORUM_PORTS[2]} ;;
  *) plain=$1 cluster=${2-$1} ;;
esac

export KVORUM_NODE_MODULES=$home/node
failed=0
play() { timeout 120 "$@" || failed=$((failed + 1)); }
for kind in plain cluster; do
  address=${!kind}
  play "$home/python/bin/python" tests/clients/python/session.py "$kind" "$address"
  play node tests/clients/node/session.mjs node-redis "$kind" "$address"
  play node tests/clients/node/session.mjs ioredis "$kind" "$address"
  play "$home/redis-rs/debug/kvorum-client-redis-rs" "$kind" "$address"
done
[[ $failed == 0 ]] || die "$failed of 8 clients failed"
echo "clients: 8 of 8 ok"
