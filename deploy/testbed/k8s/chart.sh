#!/usr/bin/env bash
# usage: chart.sh [ARGUMENT]...
#
# Installs the Helm chart in a bed's cluster whose node knows nothing of WebAssembly, runs the tests there with these arguments,
# upgrades the chart, and uninstalls it: refused while a pod runs, to the byte afterwards, and by force. To be run by
#   TESTBED_KUBE_WASM=no deploy/testbed/with.sh --daemons kube,d28 -- deploy/testbed/k8s/chart.sh
# The chart's image is built by Docker 28 from deploy/package/Dockerfile, with the programs of CORACLE_BIN_DIR.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

readonly RELEASE=coracle NAMESPACE=coracle LABEL=coracle.dev/wasm CONFIG=/etc/containerd/config.toml
readonly CHART=$TESTBED_CHECKOUT/charts/coracle

# Says what is tested, and how long the last took.
step() {
  say "chart: ${LAST:+done in $((SECONDS - BEGUN)) s; }$1"
  LAST=$1 BEGUN=$SECONDS
}

fail() {
  kubectl -n "$NAMESPACE" get pods -o wide >&2 || true
  kubectl -n "$NAMESPACE" logs "daemonset/$RELEASE" --all-containers --tail 20 >&2 || true
  die "$*"
}

push_image() {
  local dist=$TESTBED_RUN/tmp/dist
  "$TESTBED_CHECKOUT/deploy/package/dist.sh" --programs-only --bin "$TESTBED_BIN_DIR" --out "$dist" 2>/dev/null
  VERSION=$(<"$dist/VERSION")
  local name=$TESTBED_KUBE_IMAGES/coracle:$VERSION
  # Debian's client has no plugin for BuildKit.
  DOCKER_BUILDKIT=0 "$TESTBED_D28" build -q --build-arg "VERSION=$VERSION" -t "$name" "$dist/image" >/dev/null
  "$TESTBED_D28" save -o "$dist/image.tar" "$name"
  push-image "$dist/image.tar" >/dev/null
}

chart() {
  helm "$1" "$RELEASE" "$CHART" --namespace "$NAMESPACE" --create-namespace --wait --timeout 3m \
    --set "image.repository=$TESTBED_KUBE_IMAGES/coracle" "${@:2}" >/dev/null || fail "helm $1 failed"
}

uninstall() {
  helm uninstall "$RELEASE" --namespace "$NAMESPACE" --wait --timeout 2m >/dev/null 2>"$TESTBED_RUN/tmp/helm" || return 1
  kubectl -n "$NAMESPACE" wait --for delete pod --all --timeout 60s >/dev/null 2>&1
}

# Of the only node.
label() { kubectl get nodes -o json | jq -r --arg key "$LABEL" '.items[0].metadata.labels[$key] // ""'; }
restarts() { node cat /run/node/containerd.pid; }

# A pod that runs until it is deleted.
start_pod() {
  kubectl run "$1" --image "$TESTBED_KUBE_IMAGES/sleep:layer" --restart Never \
    --overrides '{"spec":{"runtimeClassName":"wasm"}}' --command -- /app.wasm 3600 >/dev/null
  kubectl wait --for condition=Ready --timeout 60s "pod/$1" >/dev/null
}

test_install() {
  step "installs"
  chart install
  [[ $(label) == true ]] || fail "the node's label is '$(label)'"
}

test_upgrade() {
  step "upgrades while a pod runs, without a restart of containerd"
  start_pod upgraded
  local before
  before=$(restarts)
  chart upgrade --set daemon.logLevel=debug
  [[ $(restarts) == "$before" ]] || fail "containerd was restarted, though nothing changed for it"
  kubectl exec upgraded -- ps >/dev/null || fail "no exec in a pod that lived through an upgrade"
}

test_bad_values() {
  step "refuses what cannot be"
  if helm upgrade "$RELEASE" "$CHART" --namespace "$NAMESPACE" --set daemon.port=no >/dev/null 2>&1; then
    fail "a port that is none was taken"
  fi
}

test_refusal() {
  step "is not uninstalled while a pod runs"
  ! uninstall || fail "uninstalled under a running pod"
  local said
  said=$(kubectl -n "$NAMESPACE" logs "job/$RELEASE-uninstall")
  [[ $said == *"$(kubectl get nodes -o name | cut -d/ -f2): "*"still run"* ]] || fail "the job does not name the node: $said"
  kubectl exec upgraded -- ps >/dev/null || fail "the refusal has hurt the pod"
}

test_force() {
  step "is uninstalled by force"
  kubectl -n "$NAMESPACE" annotate daemonset "$RELEASE" coracle.dev/uninstall=force >/dev/null
  uninstall || fail "not uninstalled: $(<"$TESTBED_RUN/tmp/helm")"
  # Not by exec: CRI refuses one in a pod whose handler it does not know.
  [[ $(kubectl get pod upgraded -o 'jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}') == "Running 0" ]] ||
    fail "the pod did not live on"
  kubectl delete pod upgraded --timeout 60s >/dev/null
  expect_as_before
}

test_uninstall() {
  step "is installed and uninstalled once more"
  chart install
  uninstall || fail "not uninstalled: $(<"$TESTBED_RUN/tmp/helm")"
  expect_as_before
  if node test -e /opt/coracle; then fail "/opt/coracle is left"; fi
}

expect_as_before() {
  node cmp "$CONFIG" "$CONFIG.before" || fail "containerd's configuration is not what it was"
  [[ -z $(label) ]] || fail "the node is still labelled"
}

main() {
  [[ ${1-} != -h && ${1-} != --help ]] || {
    print_help "${BASH_SOURCE[0]}"
    return 0
  }
  [[ -n ${TESTBED_KUBE_REGISTRY-} && -n ${TESTBED_D28-} ]] || die "run it by with.sh --daemons kube,d28"
  LAST=''
  trap 'rm -rf -- "$TESTBED_RUN"/tmp/{dist,helm}' EXIT
  step "builds and pushes the image"
  node cp "$CONFIG" "$CONFIG.before"
  push_image
  push-image "$TESTBED_CHECKOUT/test-images/build/sleep--layer.tar" >/dev/null
  test_install
  step "tests"
  "$TESTBED_SOURCE/k8s/test.sh" "$@"
  test_upgrade
  test_bad_values
  test_refusal
  test_force
  test_uninstall
  step "all is well"
}

main "$@"
