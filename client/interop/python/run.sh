#!/usr/bin/env bash
# Millstream as seen from Python: starts three nodes and runs interop.py against them, with stubs generated from proto/
# by the ordinary tools. Takes no arguments; leaves nothing behind but a virtual environment in the user's cache folder.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=SCRIPTDIR/../../../deploy/local/cluster.sh
source "$here/../../../deploy/local/cluster.sh"

work=$(mktemp -d)
CLUSTER_DIR=$work/cluster
CLUSTER_BASE_PORT=
program_pid=
# shellcheck disable=SC2317,SC2329 # called by the trap
clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  [[ -z $program_pid ]] || kill "$program_pid" 2>/dev/null || true
  cluster_stop || status=1
  if ((status != 0)); then tail -n 20 "$CLUSTER_DIR"/*.log >&2 2>/dev/null || true; fi
  rm -rf "$work"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The name holds the versions, so that a change of requirements makes a new environment; the file `complete` tells an
# interrupted installation from a whole one.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/millstream
venv=$cache/python-$(cat "$here/requirements.txt" <(python3 --version) | cksum | cut -d ' ' -f 1)
if [[ ! -f $venv/complete ]]; then
  cluster_say "installing $(tr '\n' ' ' <"$here/requirements.txt")"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  touch "$venv/complete"
fi

cluster_build
mkdir "$work/stubs"
(cd "$CLUSTER_ROOT/proto" && "$venv/bin/python" -m grpc_tools.protoc --proto_path=. --python_out="$work/stubs" \
  --grpc_python_out="$work/stubs" millstream/v1/*.proto millstream/admin/v1/*.proto)

cluster_pick_base_port 27420
cluster_start
cluster_wait_agreed 60
cluster_print_table
PYTHONPATH=$work/stubs PYTHONDONTWRITEBYTECODE=1 timeout --kill-after=5 90 "$venv/bin/python" -u "$here/interop.py" \
  --endpoints "$(cluster_endpoints)" --cluster-dir "$CLUSTER_DIR" </dev/null &
program_pid=$!
while kill -0 "$program_pid" 2>/dev/null; do
  cluster_tend
  cluster_pause 0.1
done
status=0
wait "$program_pid" || status=$?
program_pid=
exit "$status"
