#!/usr/bin/env bash
# usage: k8s-tools.sh [--where]
#
# Builds what a cluster of the test bed runs into the test bed's cache folder, once: Kubernetes' servers, kubelet and kubectl,
# CoreDNS, metrics-server and helm, and packs CoreDNS and metrics-server as images. Versions and checksums of all that they are
# made of are in k8s/go.mod and k8s/go.sum. Needs Go and its module proxy; a quarter of an hour on two processors that had other work,
# 4 GB in Go's own cache and 650 MB here.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# The version that the programs tell: a build from the module proxy knows nothing of it.
kubernetes_version() { awk '$1 == "k8s.io/kubernetes" && !found { print $2; found = 1 }' "$TESTBED_SOURCE/k8s/go.mod"; }

# What the linker is to put in: no symbols for debuggers (a third of the size), and the versions.
linker_flags() {
  local version package flags='-s -w'
  version=$(kubernetes_version)
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
    flags+=" -X $package.gitTreeState=clean -X $package.gitCommit=$(module_sum) -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  echo "$flags"
}

# In place of a commit: what was built.
module_sum() { cat "$TESTBED_SOURCE"/k8s/{go.mod,go.sum} | sha256sum | cut -c1-40; }

# The packages of all programs, each a folder named as its program.
programs() {
  local program
  for program in kubectl kube-scheduler kube-apiserver kube-controller-manager kubelet kube-proxy; do
    echo "k8s.io/kubernetes/cmd/$program"
  done
  printf '%s\n' sigs.k8s.io/metrics-server/cmd/metrics-server ./coredns helm.sh/helm/v4/cmd/helm
}

build() {
  local dir=$1 package flags begun=$SECONDS
  flags=$(linker_flags)
  say "building Kubernetes $(kubernetes_version) and what goes with it; this takes many minutes, once"
  cd -- "$TESTBED_SOURCE/k8s"
  for package in $(programs); do
    say "building ${package##*/} ($((SECONDS - begun)) s)"
    # Without C: the programs of images have no C library beside them. Others on the machine go first.
    CGO_ENABLED=0 nice -n 15 go build -trimpath -ldflags "$flags" -o "$dir/${package##*/}" "$package"
  done
  say "built in $((SECONDS - begun)) s"
}

# The images whose containers run in the cluster itself.
pack_images() {
  local dir=$1 program
  for program in coredns metrics-server; do
    "$TESTBED_SOURCE/native/pack.sh" --binary "$dir/$program" --image "coracle.test/$program:bed" "$dir/$program.tar"
    rm -- "$dir/$program"
  done
}

main() {
  case ${1-} in
    -h | --help)
      print_help "${BASH_SOURCE[0]}"
      return 0
      ;;
    --where)
      k8s_tools_dir
      return 0
      ;;
    '') ;;
    *) usage_error "unknown argument: $1" ;;
  esac
  local dir
  dir=$(k8s_tools_dir)
  mkdir -p "$TESTBED_CACHE"
  # Not the lock of fetch.sh: that this takes long is nobody else's concern.
  exec 8>"$TESTBED_CACHE/lock-k8s"
  flock 8
  [[ ! -d $dir ]] || return 0
  command -v go >/dev/null || die "Go is missing: install Go 1.26 or newer"
  rm -rf -- "$dir.new"
  mkdir -- "$dir.new"
  build "$dir.new"
  pack_images "$dir.new"
  mv -- "$dir.new" "$dir"
}

main "$@"
