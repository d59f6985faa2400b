# shellcheck shell=bash
# Starts and stops the servers that the suites here compare: Debian's redis-server, and nodes with a Redis door. Sourced
# by run.sh beside this file and by the other suites; needs bash 4.1, coreutils, and apt-get if redis-server is missing.
#
# The caller sets SERVERS_DIR (a folder of its own) and calls servers_stop in its EXIT trap. Only processes that were
# started here are ever signalled.
#
# MILLSTREAM_NODE names a node binary (without it one is built), SERVERS_REDIS another Redis than Debian's.

SERVERS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../.." && pwd)
SERVERS_HOST=127.0.0.1
SERVERS_DIR=${SERVERS_DIR:-}
SERVERS_PIDS=()
SERVERS_NODE=${MILLSTREAM_NODE:-}
# Set by what starts a server.
SERVERS_PORT=
SERVERS_PID=
# The next port to try.
SERVERS_NEXT=${MILLSTREAM_SERVERS_PORT:-26100}

servers_say() { printf '%s\n' "$*" >&2; }

servers_fail() {
  printf 'error: %s\n' "$*" >&2
  return 1
}

servers_listens() { (exec 3<>"/dev/tcp/$SERVERS_HOST/$1") 2>/dev/null; }

# Sets SERVERS_PORT to a port that nobody listens at, and that nobody is given again.
servers_pick_port() {
  while servers_listens "$SERVERS_NEXT"; do ((SERVERS_NEXT += 1)); done
  SERVERS_PORT=$SERVERS_NEXT
  ((SERVERS_NEXT += 1))
}

# Installs Debian's package $1 for the program $2. Debian starts a service with redis-server, at the standard port, and
# there it could disturb somebody: Debian's hook for that says no meanwhile.
servers_install() {
  local package=$1 program=$2 hook=/usr/sbin/policy-rc.d ours=false status=0
  ! command -v "$program" >/dev/null || return 0
  servers_say "installing $package"
  if [[ ! -e $hook ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$hook"
    chmod +x "$hook"
    ours=true
  fi
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package"; } \
    >"$SERVERS_DIR/install.log" 2>&1 </dev/null || status=$?
  if $ours; then rm -f "$hook"; fi
  ((status == 0)) || tail -n 20 "$SERVERS_DIR/install.log" >&2
  return "$status"
}

# Waits until somebody listens at port $1; fails if process $2 ends before, with the end of the log $3.
servers_await() {
  local waited
  for ((waited = 0; waited < 300; waited++)); do
    ! servers_listens "$1" || return 0
    kill -0 "$2" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 10 "$3" >&2
  servers_fail "nothing listens at port $1"
}

# Starts a Redis named $1 at a free port, with the other arguments after what all have.
servers_start_redis() {
  local name=$1
  shift
  [[ -n ${SERVERS_REDIS:-} ]] || servers_install redis-server redis-server
  servers_pick_port
  mkdir -p "$SERVERS_DIR/$name"
  "${SERVERS_REDIS:-redis-server}" --port "$SERVERS_PORT" --bind "$SERVERS_HOST" --save '' --dir "$SERVERS_DIR/$name" \
    "$@" </dev/null >"$SERVERS_DIR/$name.log" 2>&1 &
  SERVERS_PID=$!
  SERVERS_PIDS+=("$SERVERS_PID")
  servers_await "$SERVERS_PORT" "$SERVERS_PID" "$SERVERS_DIR/$name.log"
}

# Sets SERVERS_NODE to a node binary.
servers_build() {
  [[ -z $SERVERS_NODE ]] || return 0
  servers_say "building a node (release)"
  # As deploy/local/cluster.sh does, or cargo would build half of it anew with other features.
  (cd "$SERVERS_ROOT" && cargo build --release -p millstream-node -p millstream-client --bins --example order_pipeline \
    </dev/null >&2)
  local target=${CARGO_TARGET_DIR:-target}
  [[ $target == /* ]] || target=$SERVERS_ROOT/$target
  SERVERS_NODE=$target/release/millstream-node
}

# Starts a cluster named $1 of $2 nodes; sets SERVERS_DOORS to the ports of their Redis doors and SERVERS_NODE_PIDS to
# their processes, in order.
servers_start_nodes() {
  local name=$1 count=$2 node members=() clients=() peers=()
  servers_build
  SERVERS_DOORS=()
  SERVERS_NODE_PIDS=()
  for ((node = 1; node <= count; node++)); do
    servers_pick_port && clients[node]=$SERVERS_PORT
    servers_pick_port && peers[node]=$SERVERS_PORT
    servers_pick_port && SERVERS_DOORS+=("$SERVERS_PORT")
    members+=("$node=$SERVERS_HOST:${peers[node]}")
  done
  for ((node = 1; node <= count; node++)); do
    mkdir -p "$SERVERS_DIR/$name-$node"
    "$SERVERS_NODE" --node-id "$node" --data-dir "$SERVERS_DIR/$name-$node" \
      --listen "$SERVERS_HOST:${clients[node]}" --advertise "$SERVERS_HOST:${clients[node]}" \
      --peer-listen "$SERVERS_HOST:${peers[node]}" --peer-advertise "$SERVERS_HOST:${peers[node]}" \
      --resp-listen "$SERVERS_HOST:${SERVERS_DOORS[node - 1]}" \
      --initial-members "$(IFS=, && printf '%s' "${members[*]}")" \
      </dev/null >"$SERVERS_DIR/$name-$node.log" 2>&1 &
    SERVERS_PIDS+=("$!")
    SERVERS_NODE_PIDS+=("$!")
  done
  for ((node = 1; node <= count; node++)); do
    servers_await "${SERVERS_DOORS[node - 1]}" "${SERVERS_NODE_PIDS[node - 1]}" "$SERVERS_DIR/$name-$node.log"
    servers_await_writes "${SERVERS_DOORS[node - 1]}" "$SERVERS_DIR/$name-$node.log"
  done
}

# Waits until the server at port $1 takes writes: a door listens before there is a leader.
servers_await_writes() {
  local waited answer
  for ((waited = 0; waited < 150; waited++)); do
    answer=
    if exec {door}<>"/dev/tcp/$SERVERS_HOST/$1"; then
      printf 'DEL servers-await\r\n' >&"$door"
      read -r -t 2 -u "$door" answer || true
      exec {door}>&-
    fi
    [[ $answer != :* ]] || return 0
    sleep 0.1
  done
  tail -n 10 "$2" >&2
  servers_fail "the server at port $1 takes no writes; it last said '${answer%$'\r'}'"
}

# Ends what was started here: with SIGTERM, after ten seconds with SIGKILL.
servers_stop() {
  local pid waited
  for pid in "${SERVERS_PIDS[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${SERVERS_PIDS[@]}"; do
    for ((waited = 0; waited < 100; waited++)); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  SERVERS_PIDS=()
}
