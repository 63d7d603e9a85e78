#!/usr/bin/env bash
# usage: up.sh [--name NAME] [--daemons LIST] [--owner PID]
#
# Starts a test bed: real containerd and dockerd releases side by side, each with configuration, state, sockets and network
# of its own, so that the machine stays as it is. Ready when it returns; prints the path of the bed's testbed.env.
# Starting a bed that is up does nothing; one that is half up is taken down first.
#
#   --name NAME     the bed's name, a-z and 0-9, at most 12 characters (default dev); beds of different names do not meet
#   --daemons LIST  comma-separated part of the bed; the containerd that a dockerd needs comes with it
#                     c16  containerd 1.6      d26   dockerd 26 on c17, containerd image store
#                     c17  containerd 1.7      d26g  dockerd 26 on c17, graph-driver image store
#                     c21  containerd 2.1      d28   dockerd 28 on c21, containerd image store
#                   (these six are the default), and the same containerds with CRI, for pods
#                     k16, k17, k21            k17s  1.7 with ENABLE_CRI_SANDBOXES
#                   or `all`. The first start with CRI builds crictl, which takes minutes (cri-tools.sh).
#                     kube  a Kubernetes of one node on containerd 2.1, when asked for by this name only: its first start builds
#                           Kubernetes, which takes long (k8s-tools.sh)
#   --owner PID     `down.sh --stale` takes the bed down once this process is gone
#
# Environment:
#   CORACLE_BIN_DIR  folder of containerd-shim-wasm-v1 and coracle (default: target/debug of this checkout);
#                    it comes first in each containerd's PATH
#   TESTBED_ROOT     parent of the run folders (default /var/lib/coracle-bed)
#   TESTBED_CACHE    where fetch.sh put the programs
#   TESTBED_PATIENCE  seconds that a daemon may take until it answers (default 60)
#   TESTBED_KUBE_WASM  no: kube has neither the runtime handler nor the RuntimeClass wasm, and no shim in its PATH
#   TESTBED_LOG_LEVEL  of containerd and dockerd (default info); debug makes containerd start the shim with -debug
#   CORACLE_*, RUST_* reach the daemons and with them the shims, but for the folders of the code cache, which are the
#                    bed's own; nothing else of the caller's environment does
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=cri.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/cri.sh"
# shellcheck source-path=SCRIPTDIR source=k8s/cluster.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/k8s/cluster.sh"

# How long a daemon may take until it answers, in seconds. They need well under one; loaded and emulated machines need patience.
readonly PATIENCE=${TESTBED_PATIENCE:-60}

parse_arguments() {
  NAME=dev DAEMONS=$(IFS=,; echo "${DEFAULT_DAEMONS[*]}") OWNER=''
  while (($#)); do
    case $1 in
      -h | --help)
        print_help "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --name) NAME=${2-} ;;
      --daemons) DAEMONS=${2-} ;;
      --owner) OWNER=${2-} ;;
      *) usage_error "unknown argument: $1" ;;
    esac
    (($# >= 2)) || usage_error "$1 needs a value"
    shift 2
  done
  [[ $DAEMONS != all ]] || DAEMONS=$(IFS=,; echo "${ALL_DAEMONS[*]}")
}

# The chosen daemons in starting order, each containerd before its dockerds.
starting_order() {
  local daemon wanted=,$DAEMONS,
  for daemon in ${DAEMONS//,/ }; do
    suite_of "$daemon" >/dev/null
    is_containerd "$daemon" || wanted+="$(containerd_of "$daemon"),"
  done
  for daemon in "${ALL_DAEMONS[@]}" "$CLUSTER"; do
    [[ $wanted != *,"$daemon",* ]] || echo "$daemon"
  done
}

# --- one daemon -----------------------------------------------------------------------------------------------------------

# PATH of a daemon: our shim, then the suite's programs, then the machine's (whose runc serves all: newer suites' runc
# needs a newer C library).
daemon_path() {
  local dir ours=$BIN_DIR:
  dir=$(suite_dir "$(suite_of "$1")")
  [[ $1 != "$CLUSTER" || ${TESTBED_KUBE_WASM:-yes} == yes ]] || ours=''
  echo "$ours$dir/usr/bin:$dir/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

# VERSION of a Debian package in a daemon's suite.
version_of() { awk -v package="$2" '$1 == package { print $2 }' "$(suite_dir "$(suite_of "$1")")/VERSIONS"; }

# Starts a program as a daemon of the bed: session, clean environment with the bed's mark, log file, recorded pid.
launch() {
  local daemon=$1 pid
  shift
  local keep=() variable
  [[ $daemon != *s ]] || keep+=(ENABLE_CRI_SANDBOXES=1)
  while read -r variable; do
    keep+=("$variable=${!variable}")
  done < <(compgen -e | grep -E '^(CORACLE|RUST)_' || true)
  env -i "${keep[@]}" PATH="$(daemon_path "$daemon")" HOME="$BED_RUN/home" TMPDIR="$BED_RUN/tmp" LANG=C.UTF-8 \
    CORACLE_CACHE_DIR="$BED_RUN/cache" CORACLE_RUN_DIR="$BED_RUN/coracle" "$BED_MARK=$BED_RUN" setsid "$@" >>"$BED_RUN/log/$daemon" 2>&1 </dev/null 9>&- &
  pid=$!
  disown "$pid"
  echo "$pid $(start_time "$pid")" >"$BED_RUN/pid/$daemon"
}

# The configuration of a containerd. Off are the plugins that reach outside the bed: CRI where it is not wanted (its CNI
# folders), NRI (a socket in /run), tracing.
containerd_config() {
  local daemon=$1 version=$2 dir=$BED_RUN/$1
  local cri='"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",'
  if is_cri "$daemon"; then cri=''; fi
  cat <<TOML
version = $version
root = "$dir/root"
state = "$dir/state"
temp = "$BED_RUN/tmp"
disabled_plugins = [
  $cri
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "$dir/sock"
[ttrpc]
address = "$dir/ttrpc"
[debug]
level = "$LOG_LEVEL"
[plugins."io.containerd.internal.v1.opt"]
path = "$dir/opt"
TOML
  if is_cri "$daemon"; then "cri_config_v$version" "$daemon"; fi
}

start_containerd() {
  local daemon=$1 config_version=2
  [[ $(version_of "$daemon" containerd) == 1.* ]] || config_version=3
  mkdir -p "$BED_RUN/$daemon"
  containerd_config "$daemon" "$config_version" >"$BED_RUN/$daemon/config.toml"
  if is_cri "$daemon"; then
    prepare_cri "$daemon"
    launch "$daemon" nsenter --net="/run/netns/$BED_PREFIX$daemon" containerd --config "$BED_RUN/$daemon/config.toml"
  else
    launch "$daemon" containerd --config "$BED_RUN/$daemon/config.toml"
  fi
}

dockerd_config() {
  local snapshotter=true
  [[ $1 != *g ]] || snapshotter=false
  echo "{ \"features\": { \"containerd-snapshotter\": $snapshotter } }"
}

# dockerd lives in a network namespace of its own, so that its bridge, its packet filter rules and ip_forward are not the
# machine's. `ip netns exec` would also remount /sys, without the cgroups.
start_dockerd() {
  local daemon=$1 dir=$BED_RUN/$1 netns=$BED_PREFIX$1
  mkdir -p "$dir"
  dockerd_config "$daemon" >"$dir/daemon.json"
  ip netns add "$netns"
  nsenter --net="/run/netns/$netns" ip link set lo up
  launch "$daemon" nsenter --net="/run/netns/$netns" dockerd --config-file "$dir/daemon.json" \
    --host "unix://$dir/sock" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
    --containerd "$BED_RUN/$(containerd_of "$daemon")/sock" \
    --containerd-namespace "$netns" --containerd-plugins-namespace "$netns-plugins" \
    --cgroup-parent "/$netns" --group root --log-level "$LOG_LEVEL"
}

start_daemon() {
  if [[ $1 == "$CLUSTER" ]]; then start_kube; elif is_containerd "$1"; then start_containerd "$1"; else start_dockerd "$1"; fi
}

# --- waiting --------------------------------------------------------------------------------------------------------------

answers() {
  if is_cri "$1"; then
    timeout -s KILL "$((PATIENCE / 4))" "$BED_RUN/bin/$1" info >/dev/null 2>&1
  elif is_containerd "$1"; then
    timeout -s KILL "$((PATIENCE / 4))" "$BED_RUN/bin/$1" version >/dev/null 2>&1
  else
    # Of the client's own making, `docker version` prints only half and fails when there is no server.
    timeout -s KILL "$((PATIENCE / 4))" "$BED_RUN/bin/$1" version --format '{{.Server.Version}}' >/dev/null 2>&1
  fi
}

wait_for() {
  local daemon=$1 deadline=$((SECONDS + PATIENCE))
  until answers "$daemon"; do
    if ! recorded_alive "$BED_RUN/pid/$daemon"; then
      tail -n 20 "$BED_RUN/log/$daemon" >&2
      die "$daemon ended while starting; the end of its log is above"
    fi
    if ((SECONDS > deadline)); then
      tail -n 20 "$BED_RUN/log/$daemon" >&2
      die "$daemon does not answer after $PATIENCE s; the end of its log is above"
    fi
    sleep 0.05
  done
}

# --- what the user gets ---------------------------------------------------------------------------------------------------

# A client that needs no arguments to reach its daemon, ends by SIGKILL when the daemon hangs (docker ignores SIGTERM then),
# and never tries to pull.
write_client() {
  local daemon=$1 dir file=$BED_RUN/bin/${2-$1}
  dir=$(suite_dir "$(suite_of "$daemon")")
  {
    echo '#!/bin/bash'
    # shellcheck disable=SC2016 # for the client to expand
    echo 'limit=(timeout --foreground -s KILL "${TESTBED_TIMEOUT:-300}")'
    if [[ $daemon == "$CLUSTER" ]]; then
      kube_daemon_client "${2-crictl}"
    elif is_cri "$daemon" && [[ -z ${2-} ]]; then
      cri_client "$daemon"
    elif is_containerd "$daemon"; then
      echo "exec \"\${limit[@]}\" $dir/usr/bin/ctr -a $BED_RUN/$daemon/sock -n \"\${TESTBED_NAMESPACE:-$(namespace_of "$daemon")}\" \"\$@\""
    else
      # shellcheck disable=SC2016 # for the client to expand
      echo 'case ${1-} in run | create) verb=$1; shift; set -- "$verb" --pull=never "$@" ;; esac'
      echo "export DOCKER_CONFIG=$BED_RUN/home/docker"
      echo "exec \"\${limit[@]}\" $dir/usr/bin/docker -H unix://$BED_RUN/$daemon/sock \"\$@\""
    fi
  } >"$file"
  chmod +x "$file"
}

# The lines of testbed.env about one daemon.
describe_daemon() {
  local daemon=$1 key=TESTBED_${1^^} dir=$BED_RUN/$1 package=docker.io program=docker
  if [[ $daemon == "$CLUSTER" ]]; then
    describe_kube
    return
  fi
  if is_containerd "$daemon"; then package=containerd program=ctr; fi
  printf '%s=%s\n' \
    "$key" "$BED_RUN/bin/$daemon" "${key}_SOCKET" "$dir/sock" "${key}_NAMESPACE" "$(namespace_of "$daemon")" \
    "${key}_VERSION" "$(version_of "$daemon" "$package")" \
    "${key}_CLIENT" "$(suite_dir "$(suite_of "$daemon")")/usr/bin/$program" \
    "${key}_PID" "$(cut -d' ' -f1 "$BED_RUN/pid/$daemon")" "${key}_LOG" "$BED_RUN/log/$daemon"
  if is_containerd "$daemon"; then
    printf '%s=%s\n' "${key}_ROOT" "$dir/root" "${key}_STATE" "$dir/state" "${key}_CTR" "$BED_RUN/bin/$(ctr_of "$daemon")"
    ! is_cri "$daemon" || printf '%s=%s\n' "${key}_NETNS" "$BED_PREFIX$daemon" "${key}_TOOLS" "$(cri_tools_dir)"
    return 0
  fi
  printf '%s=%s\n' "${key}_ROOT" "$dir/data" "${key}_NETNS" "$BED_PREFIX$daemon" \
    "${key}_CONTAINERD" "$(containerd_of "$daemon")" \
    "${key}_STORE" "$([[ $daemon == *g ]] && echo graph || echo containerd)"
}

write_env() {
  local daemon
  {
    echo "# Test bed $BED_NAME. Read it with: set -a; . $BED_RUN/testbed.env; set +a"
    printf '%s=%s\n' TESTBED_NAME "$BED_NAME" TESTBED_RUN "$BED_RUN" TESTBED_BIN_DIR "$BIN_DIR" \
      TESTBED_SOURCE "$TESTBED_SOURCE" TESTBED_CACHE "$TESTBED_CACHE" TESTBED_ROOT "$TESTBED_ROOT" \
      TESTBED_PREFIX "$BED_PREFIX"
    echo "TESTBED_DAEMONS='$*'"
    for daemon in "$@"; do describe_daemon "$daemon"; done
  } >"$BED_RUN/testbed.env.new"
  mv "$BED_RUN/testbed.env.new" "$BED_RUN/testbed.env"
}

# --- the bed --------------------------------------------------------------------------------------------------------------

# Up means: all that was asked for runs and the last start came to its end.
is_up() {
  local daemon
  [[ -f $BED_RUN/testbed.env ]] || return 1
  grep -qxF "TESTBED_BIN_DIR=$BIN_DIR" "$BED_RUN/testbed.env" || return 1
  for daemon in "$@"; do
    recorded_alive "$BED_RUN/pid/$daemon" && answers "$daemon" || return 1
  done
}

# Notes, with the first bed of a machine, which of the shared folders the beds bring into being: down.sh removes those.
note_shared() {
  local dir
  mkdir -p "$TESTBED_ROOT"
  [[ ! -e $TESTBED_ROOT/.shared ]] || return 0
  for dir in "${SHARED_FOLDERS[@]}"; do
    [[ -e $dir ]] || echo "$dir"
  done >"$TESTBED_ROOT/.shared"
}

make_folders() {
  umask 022
  note_shared
  mkdir -p "$BED_RUN"/{bin,home/docker,log,pid,tmp}
  # Containers of other users must be able to pass through, but not to look around.
  chmod 711 "$TESTBED_ROOT" "$BED_RUN"
  # Compile workers and guests without rights may use the temporary folder, as on any machine.
  chmod 1777 "$BED_RUN/tmp"
  [[ -z $OWNER ]] || echo "$OWNER $(start_time "$OWNER")" >"$BED_RUN/owner"
  touch "$BED_RUN/born"
}

start_bed() {
  local daemon
  make_folders
  # What fails from here on must not leave half a bed.
  trap take_down EXIT
  for daemon in "$@"; do
    write_client "$daemon"
    ! is_cri "$daemon" || write_client "$daemon" "$(ctr_of "$daemon")"
    start_daemon "$daemon"
    # A dockerd started before its containerd answers would wait in steps of a second; containerd needs a tenth.
    if is_containerd "$daemon"; then wait_for "$daemon"; fi
  done
  for daemon in "$@"; do
    wait_for "$daemon"
    if [[ $daemon == "$CLUSTER" ]]; then
      finish_kube
    elif is_cri "$daemon"; then
      load_pause_image "$daemon"
    fi
  done
  write_env "$@"
  bed_mounts >"$BED_RUN/mounts.base"
  trap - EXIT
}

take_down() { "$TESTBED_SOURCE/down.sh" --locked --name "$BED_NAME"; }

report() {
  local daemon
  for daemon in "$@"; do
    say "$daemon: $(version_of "$daemon" "$(is_containerd "$daemon" && echo containerd || echo docker.io)"), client $BED_RUN/bin/$daemon"
  done
  [[ -x $BIN_DIR/containerd-shim-wasm-v1 ]] || say "warning: no containerd-shim-wasm-v1 in $BIN_DIR yet"
  [[ -z $OWNER ]] || return 0
  say "use:  . $BED_RUN/testbed.env"
  ! is_cri "$daemon" || return 0
  say "      \$TESTBED_${daemon^^} run --rm --$(is_containerd "$daemon" && echo 'runtime ' || echo 'runtime=')io.containerd.wasm.v1 IMAGE ..."
  say "end:  $TESTBED_SOURCE/down.sh --name $BED_NAME"
}

main() {
  parse_arguments "$@"
  require_root
  select_bed "$NAME"
  LOG_LEVEL=${TESTBED_LOG_LEVEL:-info}
  BIN_DIR=${CORACLE_BIN_DIR:-$TESTBED_CHECKOUT/target/debug}
  [[ $BIN_DIR == /* ]] || usage_error "CORACLE_BIN_DIR must be absolute, not '$BIN_DIR'"
  [[ -z $OWNER ]] || start_time "$OWNER" >/dev/null || usage_error "there is no process $OWNER to own the bed"
  local daemons begun
  mapfile -t daemons < <(starting_order)
  ((${#daemons[@]})) || usage_error "no daemons in '$DAEMONS'"
  fetched "${daemons[@]}" || "$TESTBED_SOURCE/fetch.sh"
  if [[ " ${daemons[*]}" == *" k"* && ! -x $(cri_tools_dir)/critest ]]; then "$TESTBED_SOURCE/cri-tools.sh"; fi
  if [[ " ${daemons[*]} " == *" $CLUSTER "* && ! -d $(k8s_tools_dir) ]]; then "$TESTBED_SOURCE/k8s-tools.sh"; fi
  begun=$(date +%s%N)
  lock_machine
  if is_up "${daemons[@]}"; then
    say "bed $BED_NAME is up"
  else
    # Also without its folder a bed may have left something, say when somebody removed the folder by hand.
    [[ ! -e $BED_RUN && -z $(bed_netns)$(bed_cgroups)$(bed_pids) ]] || take_down
    start_bed "${daemons[@]}"
    say "bed $BED_NAME is up after $((($(date +%s%N) - begun) / 1000000)) ms"
  fi
  report "${daemons[@]}"
  echo "$BED_RUN/testbed.env"
}

main "$@"
