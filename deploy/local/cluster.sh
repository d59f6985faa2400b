# shellcheck shell=bash
# Three nodes on loopback: build, start, watch, stop. Sourced by run.sh beside this file and by other scripts that need
# a cluster; needs bash 4.1, coreutils and cargo.
#
# The caller sets CLUSTER_DIR and CLUSTER_BASE_PORT, calls cluster_start and then, while it waits for whatever it waits
# for, cluster_tend several times a second; cluster_stop belongs into its EXIT trap. Only processes started here are
# ever signalled.
#
# Node N listens for clients at base + 10 (N-1), for peers one port above, and for Redis clients two ports above; the
# caller may set CLUSTER_FIRST_REDIS_PORT to have node 1 listen for these elsewhere. CLUSTER_DIR holds, for each node:
#   N/        its data
#   N.log     what it said
#   N.pid     its process id, while it runs
#   N.kill    create this file to have node N killed, as by a crash (SIGKILL)
#   N.start   create this file to have node N started again once it has ended

CLUSTER_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CLUSTER_HOST=127.0.0.1
CLUSTER_NODES=(1 2 3)
CLUSTER_PIDS=() # by node id; unset while a node is down
CLUSTER_FIRST_REDIS_PORT=${CLUSTER_FIRST_REDIS_PORT:-}
CLUSTER_STATUS=() # one line of JSON for each node that answered cluster_status

# Passes $1 seconds. Not by sleep: if a node is killed while the shell waits for another process, the shell prints a
# line of its own.
exec {CLUSTER_NEVER}<> <(:)
cluster_pause() { read -r -t "$1" -u "$CLUSTER_NEVER" _ || true; }

cluster_say() { printf '%s\n' "$*"; }

cluster_fail() {
  printf 'error: %s\n' "$*" >&2
  return 1
}

# Builds what a local cluster and its demo need. One command for all, so that no caller rebuilds what another built.
cluster_build() {
  cluster_say "building (release)"
  (cd "$CLUSTER_ROOT" && cargo build --release -p millstream-node -p millstream-client --bins --example order_pipeline)
}

cluster_binary() {
  local target=${CARGO_TARGET_DIR:-target}
  [[ $target == /* ]] || target=$CLUSTER_ROOT/$target
  printf '%s/release/%s' "$target" "$1"
}

cluster_client_port() { printf '%d' $((CLUSTER_BASE_PORT + 10 * ($1 - 1))); }
cluster_peer_port() { printf '%d' $((CLUSTER_BASE_PORT + 10 * ($1 - 1) + 1)); }

cluster_redis_port() {
  if (($1 == 1)) && [[ -n $CLUSTER_FIRST_REDIS_PORT ]]; then
    printf '%d' "$CLUSTER_FIRST_REDIS_PORT"
  else
    printf '%d' $((CLUSTER_BASE_PORT + 10 * ($1 - 1) + 2))
  fi
}

cluster_join() {
  local IFS=,
  printf '%s' "$*"
}

# The client addresses, as --endpoints takes them.
cluster_endpoints() {
  local node list=()
  for node in "${CLUSTER_NODES[@]}"; do list+=("$CLUSTER_HOST:$(cluster_client_port "$node")"); done
  cluster_join "${list[@]}"
}

# The addresses for Redis clients, in the order of the nodes.
cluster_redis_endpoints() {
  local node list=()
  for node in "${CLUSTER_NODES[@]}"; do list+=("$CLUSTER_HOST:$(cluster_redis_port "$node")"); done
  cluster_join "${list[@]}"
}

cluster_initial_members() {
  local node list=()
  for node in "${CLUSTER_NODES[@]}"; do list+=("$node=$CLUSTER_HOST:$(cluster_peer_port "$node")"); done
  cluster_join "${list[@]}"
}

# Prints the first port of the cluster that somebody listens at; succeeds if there is one.
cluster_taken_port() {
  local node port
  for node in "${CLUSTER_NODES[@]}"; do
    for port in "$(cluster_client_port "$node")" "$(cluster_peer_port "$node")" "$(cluster_redis_port "$node")"; do
      if (exec 3<>"/dev/tcp/$CLUSTER_HOST/$port") 2>/dev/null; then
        printf '%s' "$port"
        return 0
      fi
    done
  done
  return 1
}

# Sets CLUSTER_BASE_PORT to the first of ten places from $1 on where all ports are free.
cluster_pick_base_port() {
  local base
  for ((base = $1; base < $1 + 1000; base += 100)); do
    CLUSTER_BASE_PORT=$base
    cluster_taken_port >/dev/null || return 0
  done
  cluster_fail "no free ports from $1 on"
}

cluster_start_node() {
  local node=$1
  rm -f "$CLUSTER_DIR/$node.start" "$CLUSTER_DIR/$node.kill"
  mkdir -p "$CLUSTER_DIR/$node"
  "$(cluster_binary millstream-node)" --node-id "$node" --data-dir "$CLUSTER_DIR/$node" \
    --listen "$CLUSTER_HOST:$(cluster_client_port "$node")" \
    --peer-listen "$CLUSTER_HOST:$(cluster_peer_port "$node")" \
    --resp-listen "$CLUSTER_HOST:$(cluster_redis_port "$node")" \
    --advertise "$CLUSTER_HOST:$(cluster_client_port "$node")" \
    --peer-advertise "$CLUSTER_HOST:$(cluster_peer_port "$node")" \
    --initial-members "$(cluster_initial_members)" \
    </dev/null >>"$CLUSTER_DIR/$node.log" 2>&1 &
  CLUSTER_PIDS[node]=$!
  printf '%s\n' "$!" >"$CLUSTER_DIR/$node.pid"
}

# Starts all nodes, or none if that would disturb somebody.
cluster_start() {
  local node port pid
  if port=$(cluster_taken_port); then
    cluster_fail "port $port is taken; stop what listens there, or choose other ports" || return
  fi
  for node in "${CLUSTER_NODES[@]}"; do
    [[ -f $CLUSTER_DIR/$node.pid ]] || continue
    pid=$(<"$CLUSTER_DIR/$node.pid")
    if kill -0 "$pid" 2>/dev/null; then
      cluster_fail "process $pid may use $CLUSTER_DIR; stop it, or remove $node.pid there if it is no node" || return
    fi
    rm -f "$CLUSTER_DIR/$node.pid"
  done
  mkdir -p "$CLUSTER_DIR"
  for node in "${CLUSTER_NODES[@]}"; do cluster_start_node "$node"; done
}

cluster_is_running() { [[ -n ${CLUSTER_PIDS[$1]:-} ]] && kill -0 "${CLUSTER_PIDS[$1]}" 2>/dev/null; }

# Does what N.kill and N.start ask for, and takes notice of nodes that ended. Fails when none is left.
cluster_tend() {
  local node pid status
  for node in "${CLUSTER_NODES[@]}"; do
    pid=${CLUSTER_PIDS[$node]:-}
    if [[ -n $pid && -f $CLUSTER_DIR/$node.kill ]]; then
      rm -f "$CLUSTER_DIR/$node.kill"
      kill -KILL "$pid" 2>/dev/null || true
    fi
    if [[ -n $pid ]] && ! cluster_is_running "$node"; then
      status=0
      wait "$pid" 2>/dev/null || status=$?
      unset "CLUSTER_PIDS[$node]"
      rm -f "$CLUSTER_DIR/$node.pid"
      if ((status > 128)); then status="signal $((status - 128))"; else status="status $status"; fi
      cluster_say "node $node (process $pid) has ended with $status; ${#CLUSTER_PIDS[@]} go on." \
        "To start it again: touch $CLUSTER_DIR/$node.start"
    fi
    if [[ -z ${CLUSTER_PIDS[$node]:-} && -f $CLUSTER_DIR/$node.start ]]; then
      cluster_start_node "$node"
      cluster_say "node $node started again (process ${CLUSTER_PIDS[$node]})"
    fi
  done
  ((${#CLUSTER_PIDS[@]} > 0))
}

# Stops all nodes with SIGTERM; those that still run after 20 seconds are killed, which counts as a failure.
cluster_stop() {
  local node pid waited failed=0
  for node in "${!CLUSTER_PIDS[@]}"; do kill -TERM "${CLUSTER_PIDS[$node]}" 2>/dev/null || true; done
  for node in "${!CLUSTER_PIDS[@]}"; do
    pid=${CLUSTER_PIDS[$node]}
    for ((waited = 0; waited < 200; waited++)); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1 # in a trap, only waiting for a process makes the shell notice that another has ended
    done
    kill -KILL "$pid" 2>/dev/null || true
    if ! wait "$pid" 2>/dev/null; then
      cluster_fail "node $node did not stop cleanly within 20 s; see $CLUSTER_DIR/$node.log" || failed=1
    fi
    rm -f "$CLUSTER_DIR/$node.pid"
  done
  CLUSTER_PIDS=()
  return $failed
}

# Prints a number or text of a line of JSON: the first with this name.
cluster_field() {
  local pattern="\"$1\":\"?([^\",}]*)"
  [[ $2 =~ $pattern ]] && printf '%s' "${BASH_REMATCH[1]}"
}

# Asks all nodes for their status: CLUSTER_STATUS.
cluster_status() {
  mapfile -t CLUSTER_STATUS < <(
    timeout 10 "$(cluster_binary millstream)" --endpoints "$(cluster_endpoints)" cluster status </dev/null 2>/dev/null
  )
}

# Whether all nodes answer, one leads and the others follow in its term, and all have applied the same log: a node that
# holds the leader's log at the leader's term is a member.
cluster_agrees() {
  local line facts first="" roles=""
  cluster_status
  ((${#CLUSTER_STATUS[@]} == ${#CLUSTER_NODES[@]})) || return 1
  for line in "${CLUSTER_STATUS[@]}"; do
    roles+=" $(cluster_field role "$line")"
    facts="$(cluster_field term "$line") $(cluster_field applied_index "$line") $(cluster_field digest "$line")"
    first=${first:-$facts}
    [[ $facts == "$first" ]] || return 1
  done
  [[ $roles == *leader* ]] && roles=${roles/leader/follower} && [[ $roles == " follower follower follower" ]]
}

# Waits until the nodes agree, and do not say otherwise a moment later (a new cluster first writes down its members), at
# most $1 seconds; fails at once if a node ends.
cluster_wait_agreed() {
  local node before="" deadline=$((SECONDS + $1))
  until cluster_agrees && [[ ${CLUSTER_STATUS[*]} == "$before" ]]; do
    before=${CLUSTER_STATUS[*]}
    for node in "${CLUSTER_NODES[@]}"; do
      cluster_is_running "$node" && continue
      cluster_fail "node $node has ended; the last it said:" || true
      tail -n 5 "$CLUSTER_DIR/$node.log" >&2
      return 1
    done
    ((SECONDS < deadline)) || cluster_fail "the nodes did not agree within $1 s; see $CLUSTER_DIR/*.log" || return
    cluster_pause 0.3
  done
}

cluster_print_table() {
  local line
  printf '%-6s%-11s%-18s%6s%10s\n' node role address term applied
  for line in "${CLUSTER_STATUS[@]}"; do
    printf '%-6s%-11s%-18s%6s%10s\n' "$(cluster_field node "$line")" "$(cluster_field role "$line")" \
      "$(cluster_field address "$line")" "$(cluster_field term "$line")" "$(cluster_field applied_index "$line")"
  done
}
