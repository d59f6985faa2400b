#!/usr/bin/env bash
# Runs suites that other projects publish against a node, or against Debian's redis-server; see usage below.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=SCRIPTDIR/../differential/servers.sh
source "$here/../differential/servers.sh"

usage() {
  cat <<'TEXT'
Usage: client/interop/redis/published/run.sh [--redis] [redis-rs] [fakeredis]

  redis-rs   the stream tests of the `redis` crate, in RESP2 and RESP3; each starts a server of its own
  fakeredis  the tests marked `real` of the fakeredis source package, in RESP2 and RESP3: all about streams, and those
             others that use no command that a node lacks
  --redis    run them against redis-server instead of a node

Without a name, both. Fails if a test fails that is not in the suite's expected-node.txt (with --redis:
expected-redis.txt), or if one that is there passes.
TEXT
}

server=node
suites=()
while (($# > 0)); do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --redis) server=redis ;;
    redis-rs | fakeredis) suites+=("$1") ;;
    *)
      servers_fail "unknown argument $1" || usage >&2
      exit 2
      ;;
  esac
  shift
done
((${#suites[@]} > 0)) || suites=(redis-rs fakeredis)

SERVERS_DIR=$(mktemp -d)
# shellcheck disable=SC2317,SC2329 # called by the trap
clean_up() {
  local status=$? pid
  trap - EXIT
  trap '' INT TERM
  if [[ -f $SERVERS_DIR/stand-ins ]]; then
    while read -r pid; do
      # Its data folder tells it from whoever has its number now.
      if grep -qsF "$SERVERS_DIR/tests" "/proc/$pid/cmdline"; then kill -KILL "$pid" || true; fi
    done <"$SERVERS_DIR/stand-ins"
  fi
  servers_stop
  rm -rf "$SERVERS_DIR"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cache=${XDG_CACHE_HOME:-$HOME/.cache}/millstream
passed=0
failed=0

# Holds the outcomes of suite $1 to its list; $2 is how many must pass at least.
check() {
  if PYTHONDONTWRITEBYTECODE=1 python3 "$here/check.py" "$1" "$SERVERS_DIR/outcomes-$1" \
    "$here/$1/expected-$server.txt" --least "$2"; then
    ((passed += 1))
  else
    ((failed += 1))
  fi
}

redis_rs() {
  local package=$SERVERS_DIR/redis-rs source protocol began program
  cp -r "$here/redis-rs" "$package"
  cargo fetch --quiet --locked --manifest-path "$package/Cargo.toml" </dev/null
  source=$(cargo metadata --format-version 1 --locked --offline --manifest-path "$package/Cargo.toml" </dev/null |
    python3 -c 'import json, pathlib, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "redis":
        print(pathlib.Path(package["manifest_path"]).parent)')
  mkdir "$package/tests"
  cp -r "$source/tests/support" "$source/tests/test_streams.rs" "$package/tests/"
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/published}
  cargo test --quiet --locked --manifest-path "$package/Cargo.toml" --test test_streams --no-run </dev/null >&2
  program=redis-server
  if [[ $server == node ]]; then
    servers_build
    program=$here/redis-rs/redis-server-stand-in.sh
  else
    servers_install redis-server redis-server
  fi
  mkdir "$SERVERS_DIR/tests"
  for protocol in RESP2 RESP3; do
    began=$SECONDS
    # Its outcome is judged by check.
    TMPDIR=$SERVERS_DIR/tests MILLSTREAM_STAND_INS=$SERVERS_DIR/stand-ins MILLSTREAM_NODE=$SERVERS_NODE \
      REDISRS_SERVER_BIN=$program PROTOCOL=$protocol timeout --kill-after=5 300 \
      cargo test --quiet --locked --manifest-path "$package/Cargo.toml" --test test_streams -- --format pretty \
      --test-threads 2 --show-output </dev/null >"$SERVERS_DIR/output" 2>&1 || true
    python3 "$here/redis-rs/outcomes.py" "$protocol" <"$SERVERS_DIR/output" >>"$SERVERS_DIR/outcomes-redis-rs"
    grep -A 6 'panicked at' "$SERVERS_DIR/output" | grep -v '^stack backtrace' | head -n 40 || true
    servers_say "redis-rs, $protocol: $((SECONDS - began)) s"
  done
  if [[ $server == node ]]; then check redis-rs 100; else check redis-rs 36; fi
}

# Makes $venv with what the tests need, and $tests with the tests.
fakeredis_install() {
  local folder version
  folder=$cache/fakeredis-$(cat "$here/fakeredis/requirements.txt" <(python3 --version) | cksum | cut -d ' ' -f 1)
  version=$(sed -n 's/^fakeredis==//p' "$here/fakeredis/requirements.txt")
  if [[ ! -f $folder/complete ]]; then
    servers_say "installing fakeredis $version and what its tests need"
    rm -rf "$folder"
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/fakeredis/requirements.txt"
    # The wheel has no tests, the source package has.
    "$folder/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
      --dest "$folder/source" "fakeredis==$version"
    tar -xzf "$folder/source/fakeredis-$version.tar.gz" -C "$folder/source"
    touch "$folder/complete"
  fi
  venv=$folder/venv
  tests=$folder/source/fakeredis-$version
}

fakeredis() {
  local venv tests port names status=0
  fakeredis_install
  if [[ $server == node ]]; then
    servers_start_nodes node 1
    port=${SERVERS_DOORS[0]}
  else
    servers_start_redis redis --appendonly no
    port=$SERVERS_PORT
  fi
  mapfile -t names < <(grep -v '^#' "$here/fakeredis/tests.txt")
  # 1: some failed, which check judges.
  (cd "$tests" && MILLSTREAM_SERVER=$SERVERS_HOST:$port MILLSTREAM_OUTCOMES=$SERVERS_DIR/outcomes-fakeredis \
    PYTHONPATH=$here/fakeredis:. PYTHONDONTWRITEBYTECODE=1 timeout --kill-after=5 400 "$venv/bin/python" -m pytest \
    -p redirect -p no:cacheprovider -m real --quiet --tb=line --no-summary --timeout 20 "${names[@]}" \
    </dev/null >"$SERVERS_DIR/output" 2>&1) || status=$?
  if ((status > 1)); then
    tail -n 30 "$SERVERS_DIR/output" >&2
    servers_fail "pytest ended with status $status"
    ((failed += 1))
    return 0
  fi
  if [[ $server == node ]]; then check fakeredis 400; else check fakeredis 255; fi
}

for suite in "${suites[@]}"; do "${suite/-/_}"; done
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
