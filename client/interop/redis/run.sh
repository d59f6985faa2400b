#!/usr/bin/env bash
# Clients of Redis that others wrote, against the Redis door of three nodes, plain and while their leader is killed; see
# usage below. Leaves nothing behind but what it installed, in the user's cache folder.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=SCRIPTDIR/../../../deploy/local/cluster.sh
source "$here/../../../deploy/local/cluster.sh"
# shellcheck source=SCRIPTDIR/install.sh
source "$here/install.sh"
# shellcheck source=SCRIPTDIR/servers.sh
source "$here/servers.sh"

usage() {
  cat <<'TEXT'
Usage: client/interop/redis/run.sh [--quick | --all] [--only NAME] [--no-build]
                                   [--address HOST:PORT | --redis-server BINARY]

Runs redis-py (blocking, asyncio and a FastAPI service), node-redis (current, 3.x), ioredis, fred, go-redis, Jedis and
the example orders-http, each through every case of cases.txt and then through the end of the leader while they append
and consume. Ends with a table.

  --quick                the gate's part: redis-py, node-redis, one end of a leader, orders-http without one
  --all                  fails if go-redis or Jedis cannot be run. Without this they are left out, with a line that says
                         why, where their tools or their packages cannot be had
  --only NAME            the programs whose name holds NAME
  --no-build             what deploy/local builds is there already
  --address HOST:PORT    only the plain part, against any server. IT IS EMPTIED (FLUSHALL)
  --redis-server BINARY  against a Redis started here with `appendfsync always`, killed and restarted in the leader's
                         place: shows that the suite asks for what Redis does, and not for what we do

Needs Python 3.11 and cargo. Where there is no node from 20 on with npm, it takes one from PyPI. go-redis needs go from
1.24 on (1.21 fetches it), and what Go's own variables say (GOPROXY, GOWORK, ...) holds. Jedis needs a JDK from 17 on, and
mvn or JEDIS_CLASSPATH, a folder with the jars of Jedis and of what it needs.
TEXT
}

quick=false
all=false
build=true
only=
servers=cluster
given=
while (($# > 0)); do
  case $1 in
    --quick) quick=true ;;
    --all) all=true ;;
    --no-build) build=false ;;
    --only | --address | --redis-server)
      [[ -n ${2:-} ]] || cluster_fail "$1 needs a value" || exit 2
      case $1 in
        --only) only=$2 ;;
        --address) servers=address given=$2 ;;
        --redis-server) servers=redis given=$2 ;;
      esac
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
if $quick && $all; then cluster_fail "--quick and --all do not go together" || exit 2; fi

work=$(mktemp -d)
program_pid=
# shellcheck disable=SC2317,SC2329 # called by the trap
clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  if [[ -n $program_pid ]]; then
    kill "$program_pid" 2>/dev/null || true
    wait "$program_pid" 2>/dev/null || true
  fi
  servers_stop || status=1
  if ((status != 0)); then tail -n 5 "$work"/servers/*.log 2>/dev/null | cut -c 1-200 >&2 || true; fi
  rm -rf "$work"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What the programs reported, and what is wrong beyond that.
results=()
complaints=()

# Does its part of the play in $1: ends the leader once the program is under way, and starts it again after 3 seconds.
fault=
fault_step() {
  local folder=$1 progress
  case $fault in
    waiting)
      progress=$(cat "$folder/progress" 2>/dev/null) || return 0
      ((${progress:-0} >= 200)) || return 0
      servers_choose_leader
      date +%s%3N >"$folder/killed.new" && mv "$folder/killed.new" "$folder/killed"
      servers_kill_leader
      fault=killed fault_at=$SECONDS
      ;;
    killed)
      # Whole seconds: between 3 and 4.
      ((SECONDS > fault_at + 3)) || return 0
      servers_start_leader
      fault=started
      ;;
    started)
      servers_leader_listens || return 0
      date +%s%3N >"$folder/restored.new" && mv "$folder/restored.new" "$folder/restored"
      fault=over
      ;;
  esac
}

wanted() { [[ -z $only || $1 == *"$only"* ]]; }

# Goes on without the program $1, because of $2, unless it was asked for.
left_out=()
leave_out() {
  if $all || [[ $only == "$1" ]]; then cluster_fail "$1 cannot be run: $2" || exit; fi
  left_out+=("$1: $2")
}

# Runs a program: its name, its protocol, its part, its command.
program() {
  local name=$1 protocol=$2 part=$3 status=0 folder output line case
  shift 3
  wanted "$name" || return 0
  [[ $part == plain || $servers != address ]] || return 0
  folder=$(mktemp -d "$work/program.XXXX")
  output=$folder/output
  fault=$([[ $part == failover ]] && echo waiting || echo over)
  cluster_say "--- $name, RESP$protocol, $part"
  timeout --kill-after=5 120 "$@" --addresses "$(servers_addresses)" --protocol "$protocol" --part "$part" \
    --fault-dir "$folder" </dev/null >"$output" 2>&1 &
  program_pid=$!
  while kill -0 "$program_pid" 2>/dev/null; do
    servers_tend
    fault_step "$folder"
    cluster_pause 0.05
  done
  wait "$program_pid" || status=$?
  program_pid=
  # A node that is away is started again even if the program gave up.
  while [[ $fault == killed || $fault == started ]]; do
    servers_tend
    fault_step "$folder"
    cluster_pause 0.05
  done

  grep -v -e '^ok ' -e '^result|' "$output" || true
  line=$(grep '^result|' "$output" | tail -n 1) || true
  if [[ $line == *"|0" && $line != *"|0|0" ]]; then
    ((status == 0)) || complaints+=("$name, RESP$protocol, $part: status $status")
  else
    complaints+=("$name, RESP$protocol, $part: failed cases, or no result (status $status)")
  fi
  results+=("${line:-result|$name|?|RESP$protocol|$part|0|1}")
  [[ $part == plain && $name != orders-http ]] || return 0
  while read -r case _; do
    [[ -z $case || $case == '#' ]] || grep --quiet -E "^(ok $case\$|FAILED $case:)" "$output" ||
      complaints+=("$name, RESP$protocol: the case $case was not run")
  done <"$here/cases.txt"
}

print_table() {
  local client version protocol part passed failed
  printf '\n%-24s%-10s%-10s%-10s%8s%8s\n' client version protocol part passed failed
  for line in "${results[@]}"; do
    IFS='|' read -r _ client version protocol part passed failed <<<"$line"
    printf '%-24s%-10s%-10s%-10s%8s%8s\n' "$client" "$version" "$protocol" "$part" "$passed" "$failed"
  done
}

install_python
install_node
fred=
go_redis=
jedis=
if ! $quick; then
  if wanted go-redis; then install_go_redis || leave_out go-redis "$missing"; fi
  if wanted jedis; then install_jedis || leave_out jedis "$missing"; fi
  if wanted fred; then install_fred; fi
fi
if $build && [[ $servers == cluster ]]; then cluster_build; fi
servers_start
began=$SECONDS

python=(env PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -u)
orders=(node "$node_programs/orders_http.mjs" --example "$orders_http")
if $quick; then
  program redis-py 3 plain "${python[@]}" "$here/python/redis_py_sync.py"
  program node-redis 3 plain node "$node_programs/node_redis.mjs"
  program node-redis 3 failover node "$node_programs/node_redis.mjs"
  program orders-http 3 plain "${orders[@]}"
else
  for protocol in 3 2; do
    for part in plain failover; do
      # After the leader's end the two protocols have nothing to differ in but these two.
      program redis-py "$protocol" "$part" "${python[@]}" "$here/python/redis_py_sync.py"
      program node-redis "$protocol" "$part" node "$node_programs/node_redis.mjs"
      [[ $protocol == 3 || $part == plain ]] || continue
      program redis-py-asyncio "$protocol" "$part" "${python[@]}" "$here/python/redis_py_asyncio.py"
      program ioredis "$protocol" "$part" node "$node_programs/ioredis.mjs"
      program fred "$protocol" "$part" "$fred"
      [[ -z $go_redis ]] || program go-redis "$protocol" "$part" "$go_redis"
      [[ -z $jedis ]] || program jedis "$protocol" "$part" java -cp "$jedis" Main
    done
  done
  for part in plain failover; do
    program node-redis-3-callback 2 "$part" node "$node_programs/node_redis_3.mjs" --style callback
    program node-redis-3-promise 2 "$part" node "$node_programs/node_redis_3.mjs" --style promise
    program orders-http 3 "$part" "${orders[@]}"
  done
fi

((${#results[@]} == 0)) || print_table
for line in "${left_out[@]}"; do printf 'left out: %s\n' "$line"; done
((${#results[@]} > 0)) || cluster_fail "no program was run"
printf '\n%d programs in %d s against %s\n' ${#results[@]} $((SECONDS - began)) "$(servers_name)"
for complaint in "${complaints[@]}"; do printf 'FAILED: %s\n' "$complaint"; done
exit $((${#complaints[@]} > 0))
