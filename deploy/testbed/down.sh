#!/usr/bin/env bash
# usage: down.sh [--name NAME | --all | --stale]
#
# Takes a test bed down and removes all that it made: processes, mounts, network namespaces, cgroups, sockets, folders.
# It needs no answer from any daemon, so that it works the same after a crash; taking down what is not there does nothing.
#
#   --name NAME  the bed to take down (default dev)
#   --all        every bed under TESTBED_ROOT (default /var/lib/coracle-bed)
#   --stale      every bed whose owner (up.sh --owner) is gone
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

parse_arguments() {
  NAME=dev WHICH=name LOCKED=''
  while (($#)); do
    case $1 in
      -h | --help)
        print_help "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --name)
        (($# >= 2)) || usage_error "$1 needs a value"
        NAME=$2
        shift
        ;;
      --all) WHICH=all ;;
      --stale) WHICH=stale ;;
      # Our caller holds the machine's lock (up.sh after a failed start).
      --locked) LOCKED=yes ;;
      *) usage_error "unknown argument: $1" ;;
    esac
    shift
  done
}

# --- the steps, in order --------------------------------------------------------------------------------------------------

# A frozen process (`docker pause` on cgroup v1) does not die before it is thawed.
thaw() {
  local dir
  bed_cgroups | while read -r dir; do
    if [[ -f $dir/freezer.state ]]; then echo THAWED >"$dir/freezer.state" || true; fi
    if [[ -f $dir/cgroup.freeze ]]; then echo 0 >"$dir/cgroup.freeze" || true; fi
  done
}

# A last guard before the kill: seeing init, a kernel thread or one of our own ancestors here means that the search is wrong.
refuse_foreign() {
  local foreign
  foreign=$(printf '%s\n' "$@" | grep -xF -e 1 -e 2 -f <(own_ancestry; process_table | awk '$2 == 2 { print $1 }')) || return 0
  die "refusing to kill; these cannot belong to bed $BED_NAME: ${foreign//$'\n'/ }"
}

# Kills the daemons first, so that nobody restarts what is killed next, then the rest until nothing is left.
kill_processes() {
  local deadline=$((SECONDS + 20)) list pids pid seen=()
  list=$(recorded_daemons)
  while :; do
    if [[ -n $list ]]; then
      mapfile -t pids <<<"$list"
      refuse_foreign "${pids[@]}"
      kill -KILL "${pids[@]}" 2>/dev/null || true
      seen+=("${pids[@]}")
    fi
    thaw
    # Not by process substitution, which would hide that the search failed.
    list=$(bed_pids)
    [[ -n $list ]] || break
    if ((SECONDS > deadline)); then
      for pid in "${pids[@]}"; do say "still there: $(describe_pid "$pid")"; done
      die "bed $BED_NAME has processes that SIGKILL does not end"
    fi
    sleep 0.02
  done
  await_exit "${seen[@]}"
}

# A dying process loses its memory, and with it what we know it by, before its files and mounts. It holds nothing any more
# when it is gone, or when all that is left is a zombie of a single thread.
exited() {
  local state
  state=$(awk '/^State:/ { print $2 }' "/proc/$1/status" 2>/dev/null) || return 0
  [[ -z $state ]] || [[ $state == Z && $(find "/proc/$1/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l) -le 1 ]]
}

await_exit() {
  local pid deadline=$((SECONDS + 10))
  for pid in "$@"; do
    until exited "$pid" || ((SECONDS > deadline)); do sleep 0.01; done
  done
}

# Pids that up.sh recorded and that are still the same processes.
recorded_daemons() {
  local file
  for file in "$BED_RUN"/pid/*; do
    if recorded_alive "$file"; then cut -d' ' -f1 "$file"; fi
  done
}

# Mounts can lie on each other and keep each other busy: detached newest first, again until none is left.
unmount_all() {
  local mounts point round
  for round in 1 2 3 4 5; do
    mapfile -t mounts < <(bed_mounts)
    ((${#mounts[@]})) || return 0
    for point in "${mounts[@]}"; do umount --lazy -- "$point" 2>/dev/null || true; done
  done
  die "cannot unmount after $round rounds: ${mounts[*]}"
}

remove_netns() {
  local netns
  while read -r netns; do ip netns delete "$netns"; done < <(bed_netns)
}

# A cgroup is busy for a moment after its last process died.
remove_cgroups() {
  local deadline=$((SECONDS + 10)) dirs
  while :; do
    mapfile -t dirs < <(bed_cgroups)
    ((${#dirs[@]})) || return 0
    if rmdir -- "${dirs[@]}" 2>/dev/null; then return 0; fi
    ((SECONDS <= deadline)) || die "cannot remove cgroups: ${dirs[*]}"
    sleep 0.05
  done
}

# The folders of shim sockets and of ctr's FIFOs are shared. Ours are the sockets that our bundles name ($1, collected while
# they were there) and what is dead and younger than the bed: with no process behind it, it is of use to nobody.
remove_endpoints() {
  local path
  {
    echo "$1"
    if [[ -f $BED_RUN/born ]]; then
      stale_shim_sockets "$BED_RUN/born"
      stale_fifos "$BED_RUN/born"
    fi
  } | while read -r path; do
    [[ -z $path ]] || rm -rf -- "$path"
  done
}

remove_folders() {
  rm -rf -- "${RUNC_STATE:?}/$BED_PREFIX"*
  rm -rf --one-file-system -- "${BED_RUN:?}"
}

# With the last bed go the shared folders that were not there before the first, as far as they are empty.
remove_shared() {
  local dir
  [[ -f $TESTBED_ROOT/.shared && -z $(list_beds) ]] || return 0
  while read -r dir; do
    # `ip netns add` makes /run/netns a mount of its own.
    if [[ $dir == /run/netns && -z $(ls -A "$dir" 2>/dev/null) ]]; then umount "$dir" 2>/dev/null || true; fi
    rmdir -- "$dir" 2>/dev/null || true
  done <"$TESTBED_ROOT/.shared"
  rm -f -- "$TESTBED_ROOT/.shared"
  rmdir -- "$TESTBED_ROOT" 2>/dev/null || true
}

# --- beds -----------------------------------------------------------------------------------------------------------------

take_down() {
  local sockets
  select_bed "$1"
  sockets=$(bundle_sockets)
  kill_processes
  unmount_all
  remove_netns
  remove_cgroups
  remove_endpoints "$sockets"
  remove_folders
  say "bed $BED_NAME is down"
}

stale_beds() {
  local name
  for name in $(list_beds); do
    if [[ -f $TESTBED_ROOT/$name/owner ]] && ! recorded_alive "$TESTBED_ROOT/$name/owner"; then echo "$name"; fi
  done
}

main() {
  parse_arguments "$@"
  require_root
  [[ -n $LOCKED ]] || lock_machine
  local names name
  case $WHICH in
    name) names=$NAME ;;
    all) names=$(list_beds) ;;
    stale) names=$(stale_beds) ;;
  esac
  for name in $names; do take_down "$name"; done
  remove_shared
}

main "$@"
