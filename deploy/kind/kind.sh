#!/usr/bin/env bash
# usage: kind.sh up | test [ARGUMENT...] | down
#
# Coracle in a cluster of kind's, on this machine's Docker. Needs docker, kind, kubectl and helm in PATH, and access to where
# kind gets its node image.
#
#   up    makes the cluster, builds the programs and their image, installs the chart and waits for all nodes
#   test  loads the test images and runs the test programme (its options and tests: test --help)
#   down  uninstalls the chart and removes the cluster
#
# Environment:
#   KIND_CLUSTER_NAME  the cluster's name (coracle)
#   CORACLE_BIN_DIR    takes the programs from this folder instead of building them for release
set -euo pipefail

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd -- "$HERE/../.." && pwd)
readonly HERE REPOSITORY
readonly RELEASE=coracle NAMESPACE=coracle
export KIND_CLUSTER_NAME=${KIND_CLUSTER_NAME:-coracle}

say() { printf 'kind: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

require() {
  local program
  for program; do
    command -v "$program" >/dev/null || die "$program is not in PATH: install it first"
  done
}

cluster_is_up() { kind get clusters 2>/dev/null | grep -qx "$KIND_CLUSTER_NAME"; }

# The kubeconfig of this cluster alone: whatever else the user has is left as it is.
use_cluster() {
  KUBECONFIG=$REPOSITORY/target/kind/$KIND_CLUSTER_NAME.kubeconfig
  export KUBECONFIG
  mkdir -p "${KUBECONFIG%/*}"
  kind get kubeconfig >"$KUBECONFIG"
}

up() {
  require docker kind kubectl helm
  cluster_is_up || kind create cluster --config "$HERE/cluster.yaml"
  use_cluster
  local dist=$REPOSITORY/target/dist version
  "$REPOSITORY/deploy/package/dist.sh" --programs-only --out "$dist" ${CORACLE_BIN_DIR:+--bin "$CORACLE_BIN_DIR"}
  version=$(<"$dist/VERSION")
  docker build -q --build-arg "VERSION=$version" -t "coracle:$version" "$dist/image" >/dev/null
  kind load docker-image "coracle:$version"
  helm upgrade --install "$RELEASE" "$REPOSITORY/charts/coracle" --namespace "$NAMESPACE" --create-namespace --wait --timeout 5m
  kubectl get nodes -L coracle.dev/wasm
  say "the cluster is ready: export KUBECONFIG=$KUBECONFIG"
}

run_tests() {
  require docker kind kubectl cargo
  cluster_is_up || die "there is no cluster $KIND_CLUSTER_NAME: run make kind-up"
  use_cluster
  "$REPOSITORY/test-images/build.sh"
  local image
  cd -- "$REPOSITORY"
  for image in $(cargo test -q --locked -p coracle-deploy --test kubernetes -- --list-images); do
    kind load image-archive "$REPOSITORY/test-images/build/${image/:/--}.tar"
  done
  cargo test -q --locked -p coracle-deploy --test kubernetes -- "$@"
}

down() {
  require kind
  cluster_is_up || return 0
  use_cluster
  # Not by taking the nodes away alone: that the chart can be uninstalled is worth seeing.
  if command -v helm >/dev/null && helm status "$RELEASE" --namespace "$NAMESPACE" >/dev/null 2>&1; then
    helm uninstall "$RELEASE" --namespace "$NAMESPACE" --wait --timeout 6m || say "the chart could not be uninstalled"
  fi
  kind delete cluster
  rm -f -- "$KUBECONFIG"
}

main() {
  case ${1-} in
    up) up ;;
    test) run_tests "${@:2}" ;;
    down) down ;;
    -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" ;;
    *) die "what? up, test or down; see kind.sh --help" ;;
  esac
}

main "$@"
