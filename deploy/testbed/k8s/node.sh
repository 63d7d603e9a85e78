#!/usr/bin/env bash
# usage: node.sh FOLDER NAME [KEEP]...
#
# The first process of a cluster's node, started by up.sh in namespaces of its own (processes, mounts, host name, IPC, network).
# Gives the node the places that a Kubernetes node has, all of them in FOLDER/root, so that whatever is written there, also by a
# pod that may write everywhere, is not the machine's; then runs its units, and starts again those that end. The folders KEEP
# stay visible where they are.
#
# A unit is a script in FOLDER/units; those in FOLDER/late wait until somebody starts them. `systemctl` is in the node what
# k8s/systemctl does: it writes what it wants into the FIFO /run/node/control.
set -euo pipefail

FOLDER=$1 NAME=$2
readonly FOLDER NAME KEEP=("${@:3}") STATE=/run/node

# Folders that are the node's alone, and those that show the machine's where nobody wrote.
readonly OWN=(run tmp var)
readonly COPIES=(etc usr/local opt)

make_places() {
  local place root=$FOLDER/root
  mkdir -p "$root"/{run/lock,tmp,var/{cache,lib,log,tmp}}
  ln -sfn /run "$root/var/run"
  chmod 1777 "$root"/{tmp,var/tmp}
  for place in "${KEEP[@]}"; do
    mkdir -p "$root$place"
    mount --bind "$place" "$root$place"
  done
  for place in "${COPIES[@]}"; do
    mkdir -p "$root/$place" "$FOLDER/work/$place"
    mount -t overlay -o "lowerdir=/$place,upperdir=$root/$place,workdir=$FOLDER/work/$place" node "/$place"
  done
  [[ ! -e /usr/bin/systemctl ]] || mount --bind /usr/local/bin/systemctl /usr/bin/systemctl
  for place in "${OWN[@]}"; do mount --rbind "$root/$place" "/$place"; done
  mount -t proc proc /proc
  # What kubelet mounts for a pod has to show in containerd's namespace, and the other way round.
  mount --make-rshared /
}

# --- units ----------------------------------------------------------------------------------------------------------------

declare -A PID BEGUN

start_unit() {
  local unit=$1
  setsid bash "$2" >>"${FOLDER%/*}/log/kube-$unit" 2>&1 </dev/null 3>&- &
  PID[$unit]=$! BEGUN[$unit]=$SECONDS
  echo "${PID[$unit]}" >"$STATE/$unit.pid"
}

alive() { [[ -n ${PID[$1]-} ]] && kill -0 "${PID[$1]}" 2>/dev/null; }

# Only the unit's first process: containers and their shims live on, as with systemd's KillMode=process.
signal_unit() { if alive "$1"; then kill "-$2" "${PID[$1]}" 2>/dev/null || true; fi; }

obey() {
  local verb=$1 unit=$2
  case $verb in
    start) rm -f "$STATE/$unit.stopped" ;;
    stop)
      touch "$STATE/$unit.stopped"
      signal_unit "$unit" TERM
      ;;
    restart)
      rm -f "$STATE/$unit.stopped"
      signal_unit "$unit" TERM
      ;;
    kill) signal_unit "$unit" KILL ;;
  esac
}

# Starts what does not run and should; what ends at once is started again after a second.
keep_running() {
  local path unit
  for path in "$FOLDER"/{units,late}/*; do
    unit=${path##*/}
    if alive "$unit"; then continue; fi
    rm -f "$STATE/$unit.pid"
    if [[ ! -e $STATE/$unit.stopped ]] && ((SECONDS > ${BEGUN[$unit]:--2})); then start_unit "$unit" "$path"; fi
  done
}

main() {
  local path verb unit
  make_places
  hostname "$NAME"
  mkdir -p "$STATE"
  for path in "$FOLDER"/late/*; do touch "$STATE/${path##*/}.stopped"; done
  mkfifo "$STATE/control"
  exec 3<>"$STATE/control"
  # An ending child ends the wait for orders.
  trap : CHLD
  while :; do
    keep_running
    if read -r -t 0.5 -u 3 verb unit; then obey "$verb" "$unit"; fi
  done
}

main
