#!/usr/bin/env bash
# usage: quiesce.sh [--name NAME]
#
# Brings a bed's cluster to rest, so that clean-check.sh can tell what its pods left behind: deletes all pods as Kubernetes does,
# waits until the node has ended them, and stops all units but containerd. Names the pods that are not the cluster's own; that
# somebody left them is status 1.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

readonly PATIENCE=60

kubectl() { timeout -s KILL "$PATIENCE" "$BED_RUN/kube/bin/kubectl" "$@"; }
node() { "$BED_RUN/kube/bin/node" "$@"; }
crictl() { "$BED_RUN/bin/kube" "$@"; }

wait_for() {
  local what=$1 deadline=$((SECONDS + PATIENCE))
  shift
  until "$@"; do
    ((SECONDS <= deadline)) || die "after $PATIENCE s there are still $what: $(crictl pods; pod_remains)"
    sleep 0.2
  done
}

foreign_pods() { kubectl get pods --all-namespaces --no-headers | awk '$1 != "kube-system" { print $2 " of the namespace " $1 }'; }

none_running() { [[ -z $(crictl pods --quiet --state ready) && -z $(crictl ps --quiet) ]]; }

# kubelet makes a group and a folder for each pod, and removes them when all is unmounted.
pod_remains() {
  bed_cgroups | grep -E "/${BED_PREFIX}kube/kubepods/.*pod" || true
  find "$BED_RUN/kube/root/var/lib/kubelet/pods" -mindepth 1 -maxdepth 1
}
no_pod_remains() { [[ -z $(pod_remains) ]]; }

# The groups that hold those of pods are kubelet's, which leaves them for its next start.
remove_pods_groups() {
  local group
  for group in burstable besteffort; do
    find /sys/fs/cgroup -maxdepth 4 -type d -path "*/${BED_PREFIX}kube/kubepods/$group" -exec rmdir {} + 2>/dev/null || true
  done
  find /sys/fs/cgroup -maxdepth 4 -type d -path "*/${BED_PREFIX}kube/kubepods" -exec rmdir {} + 2>/dev/null || true
}

main() {
  local name=${TESTBED_NAME:-dev} left
  while (($#)); do
    case $1 in
      -h | --help)
        print_help "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --name) name=${2-} ;;
      *) usage_error "unknown argument: $1" ;;
    esac
    (($# >= 2)) || usage_error "$1 needs a value"
    shift 2
  done
  require_root
  select_bed "$name"
  [[ -x $BED_RUN/kube/bin/node ]] || die "bed $name has no cluster"
  left=$(foreign_pods)
  # Nothing may take the place of what is deleted.
  node systemctl stop kube-controller-manager kube-scheduler
  kubectl delete pods --all --all-namespaces --grace-period=1 --wait >/dev/null
  wait_for containers none_running
  wait_for "groups or folders of pods" no_pod_remains
  node systemctl stop kubelet kube-proxy kube-apiserver etcd registry
  # kubelet removes a pod's sandbox within a minute.
  crictl rmp --all --force >/dev/null 2>&1 || true
  remove_pods_groups
  [[ -z $left ]] || die "pods were left: ${left//$'\n'/, }"
}

main "$@"
