#!/usr/bin/env bash
# usage: clean-check.sh [--name NAME] [--wait SECONDS]
#
# Says whether the containers of a test bed left anything behind. Call it when all containers have been removed.
# Prints one line for each thing found, a kind and a description with a tab between them, and exits 1; prints nothing and
# exits 0 when the bed is clean. After down.sh, the bed itself must be gone too.
#
#   daemon     a daemon of the bed is dead or does not answer
#   process    a process that is the bed's but none of its daemons (shim, guest, worker, hook, ...)
#   zombie     the same, dead and not reaped
#   container  known to a containerd or dockerd, though all should be removed; likewise task, snapshot (a writable one)
#   cgroup     a cgroup of a container
#   mount      a mount below the run folder that was not there at the start
#   netns      a network namespace with the bed's name that no daemon of the bed lives in
#   socket     a socket of a shim without a shim. The folder of these sockets is common to all of a machine's containerds:
#              one that another bed left while this one was up shows here as well
#   fifo       a FIFO folder of `ctr` that nobody has open (common like the sockets)
#   bundle     a bundle or a runtime's state folder; what CRI keeps of a pod or container
#   address    an address that a pod still has
#   temp       a file in the bed's folder for temporary files
#
#   --wait SECONDS  how long things may take to settle (default 3)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

parse_arguments() {
  NAME=${TESTBED_NAME:-dev} WAIT=3
  while (($#)); do
    case $1 in
      -h | --help)
        print_help "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --name) NAME=${2-} ;;
      --wait) WAIT=${2-} ;;
      *) usage_error "unknown argument: $1" ;;
    esac
    (($# >= 2)) || usage_error "$1 needs a value"
    shift 2
  done
  [[ $WAIT =~ ^[0-9]+$ ]] || usage_error "--wait takes whole seconds, not '$WAIT'"
}

# Turns lines into findings of the kind $1.
found() { sed "/^\$/d; s/^/$1\t/"; }

# The daemons of the bed, as far as it is up.
bed_daemons() {
  local file
  for file in "$BED_RUN"/pid/*; do
    [[ ! -f $file ]] || basename "$file"
  done
}

client() {
  local daemon=$1
  shift
  TESTBED_TIMEOUT=$((${TESTBED_PATIENCE:-60} / 6)) "$BED_RUN/bin/$daemon" "$@" 2>/dev/null
}

# --- one function a kind --------------------------------------------------------------------------------------------------

find_daemons() {
  local daemon
  bed_daemons | while read -r daemon; do
    if ! recorded_alive "$BED_RUN/pid/$daemon"; then
      echo "$daemon is dead"
    elif ! client "$daemon" version >/dev/null; then
      echo "$daemon does not answer"
    fi
  done | found daemon
}

find_processes() {
  local pid kind all
  all=$(bed_pids | sort)
  {
    comm -23 <(echo "$all") <(daemon_pids | sort)
    orphaned_zombies
  } | sort -un | while read -r pid; do
    case $(awk '/^State:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) in
      '') continue ;;
      Z) kind=zombie ;;
      *) kind=process ;;
    esac
    describe_pid "$pid" | found "$kind"
  done
}

# A zombie has neither environment nor memory to know it by. Those whose parent is gone, too, are init's to reap, at once.
orphaned_zombies() {
  local pid parent state
  process_table | while read -r pid parent state; do
    [[ $state == Z && $parent == 1 ]] || continue
    case $(cat "/proc/$pid/comm" 2>/dev/null) in
      containerd-shim* | runc*) echo "$pid" ;;
    esac
  done
}

# What the daemons themselves still know of.
find_records() {
  local daemon namespace
  bed_daemons | while read -r daemon; do
    if ! is_containerd "$daemon"; then
      { client "$daemon" ps --all --quiet --no-trunc || true; } | sed "s/\$/ in $daemon/" | found container
      continue
    fi
    { client "$(ctr_of "$daemon")" namespaces ls -q || true; } | while read -r namespace; do
      [[ $namespace != moby ]] || continue
      find_containerd_records "$daemon" "$namespace"
    done
  done
}

find_containerd_records() {
  local in=" in $1, namespace $2" ctr
  ctr=$(ctr_of "$1")
  export TESTBED_NAMESPACE=$2
  { client "$ctr" containers ls -q || true; } | sed "s#\$#$in#" | found container
  { client "$ctr" tasks ls -q || true; } | sed "s#\$#$in#" | found task
  { client "$ctr" snapshots ls || true; } | awk '$NF == "Active" || $NF == "View" { print $1 }' | sed "s#\$#$in#" | found snapshot
}

# The cgroups that a namespace or a dockerd holds its containers in stay; while the bed is up they are no leftover.
find_cgroups() {
  local depth='*'
  [[ ! -d $BED_RUN ]] || depth='*/*'
  find /sys/fs/cgroup -type d -path "*/$BED_PREFIX$depth" 2>/dev/null | found cgroup || true
}

# dockerd keeps a mount of its own namespace once a container has used the host's network.
find_mounts() {
  local base=/dev/null
  [[ ! -f $BED_RUN/mounts.base ]] || base=$BED_RUN/mounts.base
  bed_mounts | grep -vxFf "$base" | grep -v '/exec/netns/default$' | found mount || true
  node_mounts | found mount
}

# What containers and kubelet mounted in a cluster's node.
node_mounts() {
  local node
  node=$(node_pids | head -n 1)
  [[ -n $node ]] || return 0
  awk '$5 ~ "^/(run/containerd/|run/netns/cni-|var/lib/containerd/|var/lib/kubelet/)" { print $5 " in the node" }' "/proc/$node/mountinfo"
}

# dockerd's namespaces of containers show as mounts; the files that it mounted them on it removes once a minute.
find_netns() {
  local netns
  bed_netns | while read -r netns; do
    [[ -f $BED_RUN/pid/${netns#"$BED_PREFIX"} ]] || echo "$netns"
  done | found netns
}

find_sockets() {
  [[ ! -f $BED_RUN/born ]] || stale_shim_sockets "$BED_RUN/born" | found socket
}

find_fifos() {
  [[ ! -f $BED_RUN/born ]] || stale_fifos "$BED_RUN/born" | found fifo
}

find_bundles() {
  {
    find "$BED_RUN"/[ck]*/{state,root}/io.containerd.{runtime.v2.task,sandbox.controller.v1.shim} -mindepth 2 -maxdepth 2
    # Not those of k17s, which itself forgets them of pods whose sandbox is the shim's.
    find "$BED_RUN"/k[0-9][0-9]/{state,root}/io.containerd.grpc.v1.cri/{sandboxes,containers} -mindepth 1 -maxdepth 1
    find "$BED_RUN"/k*/runc -mindepth 2 -maxdepth 2
    find "$BED_RUN"/d*/exec/containerd -mindepth 1 -maxdepth 1 -type d
    find "$BED_RUN"/d*/exec/runtime-runc -mindepth 2 -maxdepth 2
    find "$RUNC_STATE/$BED_PREFIX"* -mindepth 1 -maxdepth 1
    find "$BED_RUN/$CLUSTER"/root/{run,var/lib}/containerd/io.containerd.runtime.v2.task -mindepth 2 -maxdepth 2
    find "$BED_RUN/$CLUSTER"/root/{run,var/lib}/containerd/io.containerd.grpc.v1.cri/{sandboxes,containers} -mindepth 1 -maxdepth 1
    find "$BED_RUN/$CLUSTER"/root/run/containerd/{s,runc/k8s.io} "$BED_RUN/$CLUSTER"/root/var/lib/kubelet/pods -mindepth 1 -maxdepth 1
  } 2>/dev/null | found bundle || true
}

find_addresses() {
  find "$BED_RUN"/k*/cni-addresses/pods "$BED_RUN/$CLUSTER/root/var/lib/cni/networks/pods" -name '10.*' 2>/dev/null | found address || true
}

find_temp() { find "$BED_RUN/tmp" -mindepth 1 2>/dev/null | found temp || true; }

# --- all ------------------------------------------------------------------------------------------------------------------

leftovers() {
  find_daemons
  find_processes
  find_records
  find_cgroups
  find_mounts
  find_netns
  find_sockets
  find_fifos
  find_bundles
  find_addresses
  find_temp
}

main() {
  parse_arguments "$@"
  require_root
  select_bed "$NAME"
  local deadline list
  deadline=$((SECONDS + WAIT))
  while list=$(leftovers) && [[ -n $list ]] && ((SECONDS < deadline)); do sleep 0.2; done
  if [[ -n $list ]]; then
    echo "$list"
    say "bed $BED_NAME is not clean: $(wc -l <<<"$list") leftover(s)"
    exit 1
  fi
  say "bed $BED_NAME is clean"
}

main "$@"
