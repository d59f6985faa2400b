# shellcheck shell=bash disable=SC2034,SC2154
# What run.sh runs the programs against: three nodes, a Redis started here, or any server. Sourced by run.sh beside this
# file, which sets `servers`, `given` and `work`; the functions do nothing where they have nothing to do.

redis_pid=
redis_port=
leader=

servers_name() {
  case $servers in
    cluster) echo "three nodes" ;;
    redis) "$given" --version | cut -d ' ' -f 1-3 ;;
    address) echo "$given" ;;
  esac
}

redis_start() {
  "$given" --port "$redis_port" --bind 127.0.0.1 --dir "$work/servers" --save '' --appendonly yes \
    --appendfsync always </dev/null >>"$work/servers/redis.log" 2>&1 &
  redis_pid=$!
}

listens_at() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

servers_start() {
  local tries
  mkdir -p "$work/servers"
  case $servers in
    cluster)
      CLUSTER_DIR=$work/servers
      cluster_pick_base_port 28420
      cluster_start
      cluster_wait_agreed 60
      cluster_print_table
      ;;
    redis)
      for ((redis_port = 28420; redis_port < 28520; redis_port++)); do
        listens_at "127.0.0.1:$redis_port" || break
      done
      redis_start
      for ((tries = 0; tries < 100; tries++)); do
        ! listens_at "127.0.0.1:$redis_port" || return 0
        cluster_pause 0.1
      done
      cluster_fail "$given does not listen"
      ;;
  esac
}

servers_stop() {
  case $servers in
    cluster) cluster_stop ;;
    redis)
      [[ -n $redis_pid ]] || return 0
      kill -TERM "$redis_pid" 2>/dev/null || true
      wait "$redis_pid" 2>/dev/null || true
      ;;
  esac
}

servers_tend() {
  case $servers in
    cluster) cluster_tend ;;
    redis)
      if [[ -n $redis_pid ]] && ! kill -0 "$redis_pid" 2>/dev/null; then
        wait "$redis_pid" 2>/dev/null || true
        redis_pid=
      fi
      ;;
  esac
}

# Sets `leader` to the node that leads; waits for one.
servers_choose_leader() {
  [[ $servers == cluster ]] || return 0
  local line deadline=$((SECONDS + 20))
  while ((SECONDS < deadline)); do
    cluster_status
    for line in "${CLUSTER_STATUS[@]}"; do
      [[ $(cluster_field role "$line") == leader ]] || continue
      leader=$(cluster_field node "$line")
      return 0
    done
    cluster_pause 0.2
  done
  cluster_fail "nobody leads"
}

# The addresses of the doors, with commas; the leader's first, so that a program knows which one will end.
servers_addresses() {
  local node list=()
  case $servers in
    cluster)
      servers_choose_leader
      list=("$CLUSTER_HOST:$(cluster_redis_port "$leader")")
      for node in "${CLUSTER_NODES[@]}"; do
        ((node == leader)) || list+=("$CLUSTER_HOST:$(cluster_redis_port "$node")")
      done
      cluster_join "${list[@]}"
      ;;
    redis) printf '127.0.0.1:%d' "$redis_port" ;;
    address) printf '%s' "$given" ;;
  esac
}

servers_kill_leader() {
  case $servers in
    cluster) touch "$CLUSTER_DIR/$leader.kill" ;;
    redis) kill -KILL "$redis_pid" ;;
  esac
}

servers_start_leader() {
  case $servers in
    cluster) touch "$CLUSTER_DIR/$leader.start" ;;
    redis) redis_start ;;
  esac
}

servers_leader_listens() {
  case $servers in
    cluster) listens_at "$CLUSTER_HOST:$(cluster_redis_port "$leader")" ;;
    redis) listens_at "127.0.0.1:$redis_port" ;;
  esac
}
