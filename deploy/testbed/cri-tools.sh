#!/usr/bin/env bash
# usage: cri-tools.sh
#
# Builds crictl and critest, Kubernetes' clients of CRI, and a small one of ours (cri/attach) into the test bed's cache folder,
# once (three minutes). Version and checksums of all that they are made of are in cri/go.mod and cri/go.sum. Needs Go and its
# module proxy.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

readonly MODULE=github.com/kubernetes-sigs/cri-tools

build() {
  local dir=$1
  say "building crictl and critest; this takes some minutes"
  cd -- "$TESTBED_SOURCE/cri"
  go build -o "$dir/crictl" "$MODULE/cmd/crictl"
  go build -o "$dir/attach" ./attach
  # critest is a test program, whose package has no other files.
  go test -c -o "$dir/critest" "$MODULE/cmd/critest"
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
  local dir
  dir=$(cri_tools_dir)
  mkdir -p "$TESTBED_CACHE"
  exec 8>"$TESTBED_CACHE/lock"
  flock 8
  [[ ! -x $dir/critest ]] || return 0
  command -v go >/dev/null || die "Go is missing: install Go 1.24 or newer"
  rm -rf -- "$dir.new"
  build "$dir.new"
  mv -- "$dir.new" "$dir"
}

main "$@"
