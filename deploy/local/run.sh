#!/usr/bin/env bash
# Builds Millstream and runs three nodes on this machine until Ctrl-C; see usage below.
set -euo pipefail

# shellcheck source=SCRIPTDIR/cluster.sh
source "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

usage() {
  cat <<'TEXT'
Usage: deploy/local/run.sh [--demo] [--redis] [--data-dir DIR] [--base-port PORT]

Builds Millstream in release mode and runs three nodes on loopback in the foreground. Ctrl-C stops them; their data
stay, and the next start goes on with them.

  --demo            run the order pipeline on a new cluster, kill and restart its leader on the way, verify, and exit
  --redis           node 1 listens for Redis clients at their standard port, 6379
  --data-dir DIR    where data, logs and pid files go   [env MILLSTREAM_LOCAL_DIR; millstream-data/local, with --demo
                    millstream-data/demo, which is emptied first]
  --base-port PORT  clients reach the nodes at PORT, PORT+10 and PORT+20, peers one port above, Redis clients two ports
                    above   [env MILLSTREAM_LOCAL_PORT; 7420]
TEXT
}

demo=false
CLUSTER_DIR=${MILLSTREAM_LOCAL_DIR:-}
CLUSTER_BASE_PORT=${MILLSTREAM_LOCAL_PORT:-7420}
while (($# > 0)); do
  case $1 in
    --demo) demo=true ;;
    --redis) CLUSTER_FIRST_REDIS_PORT=6379 ;;
    --data-dir | --base-port)
      [[ -n ${2:-} ]] || cluster_fail "$1 needs a value" || exit 2
      if [[ $1 == --data-dir ]]; then CLUSTER_DIR=$2; else CLUSTER_BASE_PORT=$2; fi
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      cluster_fail "unknown argument $1" || usage >&2
      exit 2
      ;;
  esac
  shift
done
if ! [[ $CLUSTER_BASE_PORT =~ ^[1-9][0-9]{3,4}$ ]] || ((CLUSTER_BASE_PORT > 65513)); then
  cluster_fail "the base port must be a number from 1000 to 65513, not '$CLUSTER_BASE_PORT'" || exit 2
fi
if [[ -n $CLUSTER_FIRST_REDIS_PORT ]]; then
  for ((port = CLUSTER_BASE_PORT; port <= CLUSTER_BASE_PORT + 22; port++)); do
    if ((port == CLUSTER_FIRST_REDIS_PORT)); then
      cluster_fail "with --redis, the ports from the base port on must not reach $CLUSTER_FIRST_REDIS_PORT" || exit 2
    fi
  done
fi

# A folder that was named is not ours to empty.
if $demo && [[ -n $CLUSTER_DIR ]] && compgen -G "$CLUSTER_DIR/[123]" >/dev/null; then
  cluster_fail "the demo needs a new cluster, and $CLUSTER_DIR holds data" || exit 2
fi
default_dir=$CLUSTER_ROOT/millstream-data/$($demo && echo demo || echo local)
wipe=false
[[ -n $CLUSTER_DIR ]] || { CLUSTER_DIR=$default_dir && wipe=$demo; }

pipeline_pid=
# shellcheck disable=SC2317,SC2329 # called by the trap
clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  [[ -z $pipeline_pid ]] || kill "$pipeline_pid" 2>/dev/null || true
  if ((${#CLUSTER_PIDS[@]} > 0)); then
    cluster_say "stopping"
    if cluster_stop; then cluster_say "stopped; the data are in $CLUSTER_DIR"; else status=1; fi
  fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cluster_build
if $wipe && ! cluster_taken_port >/dev/null; then rm -rf "$default_dir"; fi
cluster_start
cluster_say "waiting for three nodes to agree (logs: $CLUSTER_DIR/N.log)"
cluster_wait_agreed 60
cluster_say ""
cluster_print_table

if $demo; then
  cluster_say ""
  timeout --kill-after=5 240 "$(cluster_binary examples/order_pipeline)" --endpoints "$(cluster_endpoints)" \
    --cluster-dir "$CLUSTER_DIR" --orders "$CLUSTER_ROOT/client/examples/order_pipeline/orders.jsonl" </dev/null &
  pipeline_pid=$!
  while kill -0 "$pipeline_pid" 2>/dev/null; do
    cluster_tend
    cluster_pause 0.1
  done
  status=0
  wait "$pipeline_pid" || status=$?
  pipeline_pid=
  ((status == 0)) || cluster_fail "the order pipeline failed with status $status; the nodes' logs are in $CLUSTER_DIR"
  exit 0
fi

cluster_say "
Talk to them with:
  alias millstream='$(cluster_binary millstream) --endpoints $(cluster_endpoints)'
  millstream cluster status
  millstream append greetings name=Zoë text='hello'
  millstream range greetings
or with any client for Redis Streams, at $(cluster_redis_endpoints):
  redis-cli -p $(cluster_redis_port 1) XADD greetings '*' name Zoë text hello
  redis-cli -p $(cluster_redis_port 1) XRANGE greetings - +
Process ids are in $CLUSTER_DIR/N.pid. Ctrl-C stops the nodes; their data stay."
# Ctrl-C is the ordinary way to end, so it is no failure from here on.
trap 'exit 0' INT TERM
while cluster_tend; do cluster_pause 0.3; done
cluster_fail "no node is left"
