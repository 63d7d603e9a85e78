#!/usr/bin/env bash
# usage: test.sh [ARGUMENT]...
#
# Runs the tests of a bed's cluster (deploy/tests/kubernetes), with these arguments: pushes the images that they want to the
# cluster's registry, and starts them in the node's network namespace, where they reach what kubectl forwards. To be run by
#   deploy/testbed/with.sh --daemons kube -- deploy/testbed/k8s/test.sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

# The test program, built.
test_program() {
  cargo test --locked --manifest-path "$TESTBED_CHECKOUT/Cargo.toml" -p coracle-deploy --test kubernetes --no-run \
    --message-format json-render-diagnostics | jq -r 'select(.target.name == "kubernetes" and .executable) | .executable'
}

main() {
  [[ ${1-} != -h && ${1-} != --help ]] || {
    print_help "${BASH_SOURCE[0]}"
    return 0
  }
  [[ -n ${TESTBED_KUBE_REGISTRY-} ]] || die "this bed has no cluster: run it by with.sh --daemons kube"
  local program image layouts=()
  program=$(test_program)
  for image in $("$program" --list-images); do
    layouts+=("$TESTBED_CHECKOUT/test-images/build/${image/:/--}.tar")
  done
  push-image "${layouts[@]}" >/dev/null 2>"$TESTBED_RUN/log/push-image" || die "cannot push: $(tail -n 5 "$TESTBED_RUN/log/push-image")"
  in-kube "$program" --images "$TESTBED_KUBE_IMAGES" --node "$TESTBED_KUBE_NODE" "$@"
}

main "$@"
