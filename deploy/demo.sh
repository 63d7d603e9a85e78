#!/usr/bin/env bash
# The main job, shown: WebAssembly programs run by a real Docker as containers.
#
# Runs inside a test bed: deploy/testbed/with.sh deploy/demo.sh (or `make demo`).
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} == --help ]]; then
  sed -n '2,4s/^# \{0,1\}//p' "$0"
  exit 0
fi

docker=${TESTBED_D28:?no test bed: run this by deploy/testbed/with.sh}

show() {
  printf '\n$ docker %s\n' "$*"
  "$docker" "$@"
}

for image in hello--rootfs hello-rust--layer thirdparty-python--rootfs; do
  "$docker" load --quiet --input "test-images/build/$image.tar" >/dev/null
done

run=(run --rm --pull=never --runtime=io.containerd.wasm.v1)
show "${run[@]}" coracle.test/hello:rootfs
show "${run[@]}" --platform=wasip1/wasm coracle.test/hello-rust:layer
show "${run[@]}" coracle.test/thirdparty-python:rootfs
printf '\nThat was Docker %s with the runtime io.containerd.wasm.v1.\n' \
  "$("$docker" version --format '{{.Server.Version}}')"
