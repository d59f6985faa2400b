#!/usr/bin/env bash
# Stands in for redis-server where redis-rs's tests start one (REDISRS_SERVER_BIN): takes the options that they give,
# and becomes a node with a Redis door at that port. MILLSTREAM_NODE names the node binary.
#
# They end it with SIGKILL, so this must become the node rather than start it, and the node's data go into the folder of
# the log file, which the tests remove.
set -euo pipefail

port=0
host=127.0.0.1
log=
while (($# > 0)); do
  case $1 in
    -v | --version)
      # Redis's form: the tests read the number.
      printf 'Redis server v=%s.0.0 sha=00000000:0 malloc=none bits=64 build=0\n' "${MILLSTREAM_REDIS_LEVEL:-8}"
      exit 0
      ;;
    --port) port=$2 && shift ;;
    --bind) host=$2 && shift ;;
    --logfile) log=$2 && shift ;;
    # Nothing of a node is like these, and nothing depends on them.
    --save | --repl-diskless-load | --enable-debug-command) shift ;;
    *)
      printf 'error: no node has an option like %s\n' "$1" >&2
      exit 2
      ;;
  esac
  shift
done
if [[ -z $log ]] || ((port == 0)); then
  printf 'error: needs --port and --logfile\n' >&2
  exit 2
fi

# Two more ports, for the protocol of our own and for peers: likely to be free, below those that the system hands out.
base=$((10000 + $$ % 10000 * 2))
data=${log%/*}/node
# A test that fails leaves its server running: run.sh ends those that are still there.
printf '%s\n' "$$" >>"${MILLSTREAM_STAND_INS:-/dev/null}"
exec "$MILLSTREAM_NODE" --node-id 1 --data-dir "$data" --resp-listen "$host:$port" \
  --listen "$host:$base" --advertise "$host:$base" \
  --peer-listen "$host:$((base + 1))" --peer-advertise "$host:$((base + 1))" \
  --initial-members "1=$host:$((base + 1))" >>"$log" 2>&1
