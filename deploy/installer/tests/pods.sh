#!/usr/bin/env bash
# usage: pods.sh
#
# Installs into the real containerds with CRI of a test bed (1.6, 1.7, 2.1), from whose PATH the shim is taken away, and runs a
# pod with the installed handler: its shim must be the installed one. Uninstalls while it runs (refused), and after it, which
# must give the configuration back to the byte. Half a minute; needs root, and the programs of `make build`.
#
# Environment: CORACLE_BIN_DIR, as for the test bed's up.sh
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../testbed/lib.sh
. "$HERE/../../testbed/lib.sh"

readonly HANDLER=wasm-installed
readonly DAEMONS=(k16 k17 k21)

# A name of a daemon's variable in testbed.env.
of() {
  local name=TESTBED_${1^^}_$2
  echo "${!name}"
}

# The installer, in a mount namespace where the state of this machine's own installation is not to be seen.
coracle_node() {
  # shellcheck disable=SC2016 # for that shell to expand
  unshare --mount sh -c 'mkdir -p /var/lib/coracle && mount --bind "$0" /var/lib/coracle && exec "$@"' \
    "$STATE" "$PROGRAMS/coracle-node" "$@"
}

on() {
  local daemon=$1 verb=$2
  shift 2
  coracle_node "$verb" --distribution containerd --containerd "$(suite_dir "$(suite_of "$daemon")")/usr/bin/containerd" \
    --config "$TESTBED_RUN/$daemon/config.toml" --bin-dir "$WORK/bin" --handler "$HANDLER" --unit coracle-bed-none "$@"
}

# Starts the bed's containerd anew, with a PATH that has no shim of ours.
restart() {
  local daemon=$1 pid
  pid=$(cut -d' ' -f1 "$TESTBED_RUN/pid/$daemon")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
  env -i PATH="$(suite_dir "$(suite_of "$daemon")")/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$TESTBED_RUN/home" \
    CORACLE_CACHE_DIR="$TESTBED_RUN/cache" CORACLE_RUN_DIR="$TESTBED_RUN/coracle" "$BED_MARK=$TESTBED_RUN" \
    setsid nsenter --net="/run/netns/$(of "$daemon" NETNS)" containerd --config "$TESTBED_RUN/$daemon/config.toml" \
    >>"$TESTBED_RUN/log/$daemon" 2>&1 </dev/null &
  pid=$!
  disown "$pid"
  echo "$pid $(start_time "$pid")" >"$TESTBED_RUN/pid/$daemon"
  until "$TESTBED_RUN/bin/$daemon" info >/dev/null 2>&1; do
    kill -0 "$pid" 2>/dev/null || die "$daemon ended: $(tail -n 5 "$TESTBED_RUN/log/$daemon")"
    sleep 0.1
  done
}

check() {
  local daemon=$1 client=$TESTBED_RUN/bin/$1 config=$TESTBED_RUN/$1/config.toml pod shims
  STATE=$WORK/state-$daemon
  mkdir -p "$STATE"
  cp "$config" "$WORK/before"
  on "$daemon" install --programs "$PROGRAMS"
  restart "$daemon"
  echo "{\"metadata\":{\"name\":\"p\",\"uid\":\"1\",\"namespace\":\"n\"},\"linux\":{\"cgroup_parent\":\"/${TESTBED_PREFIX}pods\"}}" >"$WORK/pod.json"
  pod=$("$client" runp --runtime "$HANDLER" "$WORK/pod.json")
  # Processes come and go meanwhile.
  shims=$({ find /proc -maxdepth 2 -name exe -lname "$WORK/bin/containerd-shim-wasm-v1" 2>/dev/null || true; } | wc -l)
  ((shims > 0)) || die "$daemon: no shim runs from $WORK/bin"
  if on "$daemon" uninstall 2>"$WORK/refused"; then die "$daemon: uninstalled under a running pod"; fi
  grep -q "$pod" "$WORK/refused" || die "$daemon: the refusal does not name the pod: $(cat "$WORK/refused")"
  "$client" rmp -f "$pod" >/dev/null
  # The pod's shim stays for a second.
  until on "$daemon" uninstall 2>"$WORK/refused"; do
    grep -q 'still run' "$WORK/refused" || die "$daemon: $(cat "$WORK/refused")"
    sleep 0.5
  done
  cmp "$WORK/before" "$config" || die "$daemon: the configuration is not as it was"
  [[ ! -e $WORK/bin && -z $(ls -A "$STATE") ]] || die "$daemon: something is left: $(find "$WORK/bin" "$STATE")"
  say "$daemon: containerd $(of "$daemon" VERSION) runs pods with the installed shim"
}

inside() {
  local daemon
  PROGRAMS=$TESTBED_BIN_DIR
  WORK=$TESTBED_RUN/installer
  mkdir -p "$WORK"
  for daemon in "${DAEMONS[@]}"; do check "$daemon"; done
}

main() {
  case ${1-} in
    -h | --help)
      print_help "${BASH_SOURCE[0]}"
      return 0
      ;;
    '') ;;
    *) usage_error "unknown argument: $1" ;;
  esac
  require_root
  if [[ ${TESTBED_DAEMONS-} == "${DAEMONS[*]}" ]]; then
    inside
  else
    local list="${DAEMONS[*]}"
    exec "$TESTBED_SOURCE/with.sh" --daemons "${list// /,}" -- "${BASH_SOURCE[0]}" "$@"
  fi
}

main "$@"
