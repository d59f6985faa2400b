#!/usr/bin/env bash
# XADD with redis-benchmark, pipelined and not, against a Redis that writes every command to disk before it answers, one
# node, and the leader of three nodes, in turn. Prints a Markdown table. Takes two minutes; no arguments, or those of
# benchmark.py (--rounds, --seconds, --clients).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=SCRIPTDIR/../differential/servers.sh
source "$here/../differential/servers.sh"

# Where the data are says what a write to disk costs: not in memory.
SERVERS_DIR=$(mktemp -d -p "${MILLSTREAM_BENCHMARK_DIR:-${TMPDIR:-/tmp}}")
# shellcheck disable=SC2317,SC2329 # called by the trap
clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  servers_stop
  rm -rf "$SERVERS_DIR"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

servers_install redis-tools redis-benchmark
servers_start_redis redis --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0
servers=("Redis, appendfsync always:$SERVERS_PORT:$SERVERS_PID")
servers_start_nodes one 1
servers+=("one node:${SERVERS_DOORS[0]}:${SERVERS_NODE_PIDS[0]}")
servers_start_nodes three 3

# The leader's door, and its process first.
leader=
for waited in {1..100}; do
  for at in 0 1 2; do
    role=$(redis-cli -h "$SERVERS_HOST" -p "${SERVERS_DOORS[at]}" info replication | tr -d '\r' |
      sed -n 's/^millstream_role://p')
    if [[ $role == leader ]]; then leader=$at; fi
  done
  [[ -z $leader ]] || break
  sleep 0.1
done
[[ -n $leader ]] || servers_fail "no node leads after $waited tries"
pids=("${SERVERS_NODE_PIDS[leader]}")
for at in 0 1 2; do ((at == leader)) || pids+=("${SERVERS_NODE_PIDS[at]}"); done
servers+=("three nodes' leader:${SERVERS_DOORS[leader]}:$(IFS=, && printf '%s' "${pids[*]}")")

PYTHONDONTWRITEBYTECODE=1 timeout --kill-after=5 170 python3 "$here/benchmark.py" "${servers[@]}" "$@" </dev/null
