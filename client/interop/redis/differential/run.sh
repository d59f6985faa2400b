#!/usr/bin/env bash
# The same random commands to Debian's redis-server and to a node, replies compared byte for byte; see usage below.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=SCRIPTDIR/servers.sh
source "$here/servers.sh"

usage() {
  cat <<'TEXT'
Usage: client/interop/redis/differential/run.sh [--seconds N] [--against HOST:PORT | --self-test]
                                                [--redis-server PROGRAM] [option of differential.py ...]

Starts a redis-server and one node on loopback, sends both the same random commands for N seconds (60), and prints where
their replies differ. Fails if they do, except as stated in stated.py.

  --against HOST:PORT  compare with this server instead of a node that is started here; it is emptied again and again
  --nodes 3            start three nodes instead of one, and talk to two of them, whichever leads
  --self-test          compare two Redis servers: no difference may be found, and each planted fault must be
  --redis-server P     start this Redis instead of Debian's; what it has in common with the node is not excused then
  --seed N, --first N, --sequences N, --commands N, --kinds N, --report FILE: see differential.py
TEXT
}

against=
self_test=false
options=()
seconds=60
nodes=1
while (($# > 0)); do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --self-test) self_test=true ;;
    --against | --seconds | --nodes | --redis-server | --*)
      [[ -n ${2:-} ]] || servers_fail "$1 needs a value" || exit 2
      case $1 in
        --against) against=$2 ;;
        --seconds) seconds=$2 ;;
        --nodes) nodes=$2 ;;
        --redis-server) SERVERS_REDIS=$2 ;;
        *) options+=("$1" "$2") ;;
      esac
      shift
      ;;
    *)
      servers_fail "unknown argument $1" || usage >&2
      exit 2
      ;;
  esac
  shift
done

SERVERS_DIR=$(mktemp -d)
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

# Millstream's blocks hold 100 entries whatever their size, up to 12 KiB; so must Redis's nodes, or `~` trims at other
# places.
redis_options=(--appendonly no --stream-node-max-bytes 0 --stream-node-max-entries 100)

compare() {
  PYTHONDONTWRITEBYTECODE=1 timeout --kill-after=5 $((seconds + 400)) python3 -u "$here/differential.py" \
    --redis "$SERVERS_HOST:$redis" "$@" </dev/null
}

# Fails unless the fault $1 is found, and shown by few commands.
find_plant() {
  local status=0 lines
  compare --against "$against" --seconds 20 --plant "$1" --kinds 1 --sequences 2000 >"$SERVERS_DIR/plant" ||
    status=$?
  lines=$(grep -c '^  | ' "$SERVERS_DIR/plant" || true)
  if ((status != 1 || lines == 0 || lines > 8)); then
    cat "$SERVERS_DIR/plant"
    servers_fail "planted fault '$1': status $status, shown by $lines commands; wanted status 1 and 1 to 8 commands"
    return 1
  fi
  sed -n '/^difference/,/^  other/p' "$SERVERS_DIR/plant"
  servers_say "planted fault '$1': found, shown by $lines commands"
}

servers_start_redis redis "${redis_options[@]}"
redis=$SERVERS_PORT
if $self_test; then
  servers_start_redis other "${redis_options[@]}"
  against=$SERVERS_HOST:$SERVERS_PORT
  compare --against "$against" --seconds "$seconds" "${options[@]}"
  PYTHONDONTWRITEBYTECODE=1 python3 "$here/test_stated.py"
  passed=2
  for plant in longer lost-cursor wrong-null wrong-text; do
    find_plant "$plant"
    ((passed += 1))
  done
  printf '%d passed, 0 failed\n' "$passed"
  exit 0
fi
if [[ -z $against ]]; then
  servers_start_nodes node "$nodes"
  against=$(printf "$SERVERS_HOST:%s," "${SERVERS_DOORS[@]:0:2}")
  against=${against%,}
fi
status=0
compare --against "$against" --seconds "$seconds" "${options[@]}" || status=$?
if ((status > 1)); then exit "$status"; fi
printf '%d passed, %d failed\n' $((1 - status)) "$status"
exit "$status"
