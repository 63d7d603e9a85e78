#!/usr/bin/env bash
# usage: fetch.sh [--check]
#
# Downloads the containerd and Docker releases of the test bed as Debian packages and unpacks them, uninstalled, into
#   ${TESTBED_CACHE:-${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/testbed}
#
#   bookworm  containerd 1.6.20, network plugins of CNI, an image registry
#   trixie    containerd 1.7.24, dockerd and docker 26.1.5
#   sid       containerd 2.1.9,  dockerd and docker 28.5.2
#   etcd      of trixie, 3.5.16, for a cluster
#
# The mirror is the one that this machine's apt sources name; apt verifies the archive's signature and each package's hash.
# The machine's own apt never sees the other suites: the downloads use a configuration, lists and cache of their own.
# What is already there is verified and kept; an interrupted download goes on where it stopped. Where the mirror no longer
# has an exact version, the newest of the same major line is taken, and said.
# Programs that the bed needs from the machine itself (runc, ip, iptables, ...) are installed only when missing.
#
#   --check   only verify what is in the cache; exit 1 when something is missing or damaged
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$TESTBED_SOURCE/apt.sh"

# suite, package, version wanted, major line that may stand in
readonly PACKAGES='bookworm containerd 1.6.20 1
bookworm containernetworking-plugins 1.1.1 1
bookworm docker-registry 2.8.2 2
trixie containerd 1.7.24 1
trixie docker.io 26.1.5 26
trixie docker-cli 26.1.5 26
trixie-etcd etcd-server 3.5.16 3.5
sid containerd 2.1.9 2
sid docker.io 28.5.2 28
sid docker-cli 28.5.2 28'

# --- the machine's own packages -------------------------------------------------------------------------------------------

install_tools() {
  local missing
  mapfile -t missing < <(missing_tools; [[ -f $KEYRING ]] || echo debian-archive-keyring)
  ((${#missing[@]})) || return 0
  require_root
  say "installing from this machine's Debian: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# --- versions -----------------------------------------------------------------------------------------------------------

# Versions of a package that the suite's mirror has, newest first.
served_versions() {
  local dir=$1 package=$2
  APT_CONFIG=$dir/etc/apt.conf apt-cache madison "$package" | awk -F'|' '{ gsub(/ /, "", $2); print $2 }'
}

# Upstream's part of a Debian version: 26.1.5+dfsg1-9+b9 -> 26.1.5
upstream() { sed -E 's/^[0-9]+://; s/[-+~].*//' <<<"$1"; }

# The Debian version to take for a package: the exact one, else the newest of its major line.
choose_version() {
  local dir=$1 package=$2 wanted=$3 line=$4 version fallback=''
  while read -r version; do
    if [[ $(upstream "$version") == "$wanted" ]]; then
      echo "$version"
      return 0
    fi
    [[ -n $fallback || $(upstream "$version") != "$line".* ]] || fallback=$version
  done < <(served_versions "$dir" "$package")
  [[ -n $fallback ]] || die "the mirror has no $package of the line $line (wanted $wanted)"
  say "the mirror no longer has $package $wanted; taking $(upstream "$fallback") instead"
  echo "$fallback"
}

# --- one suite ------------------------------------------------------------------------------------------------------------

# Downloads the suite's packages into its apt cache; apt checks the hashes and resumes partial files.
download_suite() {
  local suite=$1 dir=$2 name package wanted line version picks=()
  say "$suite: reading package lists"
  APT_CONFIG=$dir/etc/apt.conf apt-get update -qq
  while read -r name package wanted line; do
    [[ $name == "$suite" ]] || continue
    version=$(choose_version "$dir" "$package" "$wanted" "$line")
    picks+=("$package=$version")
  done <<<"$PACKAGES"
  say "$suite: downloading ${picks[*]}"
  (cd "$dir/cache/archives" && APT_CONFIG=$dir/etc/apt.conf apt-get download -qq "${picks[@]}")
  printf '%s\n' "${picks[@]}" >"$dir/picks"
}

# Unpacks beside the final place and moves it there when all is done, so that a suite is either whole or absent.
unpack_suite() {
  local suite=$1 dir=$2 target package version
  target=$(suite_dir "$suite")
  rm -rf "$target" "$target.new"
  mkdir -p "$target.new"
  while IFS='=' read -r package version; do
    say "$suite: unpacking $package $version"
    # apt writes the colon of an epoch as %3a.
    dpkg-deb -x "$dir/cache/archives/${package}_${version//:/%3a}_$(dpkg --print-architecture).deb" "$target.new"
    echo "$package $(upstream "$version") $version" >>"$target.new/VERSIONS"
  done <"$dir/picks"
  (cd "$target.new" && find usr -type f -perm -u+x -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
  mv "$target.new" "$target"
}

# The programs must also run here: a suite newer than the machine's C library would fail only later, in a daemon's log.
try_suite() {
  local suite=$1 dir program
  dir=$(suite_dir "$suite")
  for program in containerd dockerd docker docker-registry etcd; do
    [[ -n $(find "$dir/usr/bin" "$dir/usr/sbin" -name "$program" 2>/dev/null) ]] || continue
    PATH=$dir/usr/bin:$dir/usr/sbin "$program" --version >/dev/null ||
      die "$suite: $program does not run on this machine"
  done
}

suite_verified() {
  local dir
  dir=$(suite_dir "$1")
  [[ -f $dir/SHA256SUMS ]] && (cd "$dir" && sha256sum --check --quiet --strict SHA256SUMS >&2)
}

fetch_suite() {
  local suite=$1 mirror dir=$TESTBED_CACHE/apt/$1
  if suite_verified "$suite"; then
    say "$suite: already there and unchanged"
    return 0
  fi
  mirror=$(find_mirror)
  configure_apt "${suite%%-*}" "$mirror" "$dir"
  download_suite "$suite" "$dir"
  unpack_suite "$suite" "$dir"
  try_suite "$suite"
  # The packages are in the unpacked form now; lists and archives would only take space.
  rm -rf "$dir"
}

report() {
  local suite
  for suite in "${SUITES[@]}"; do
    awk -v suite="$suite" '{ printf "testbed: %s: %s %s\n", suite, $1, $2 }' "$(suite_dir "$suite")/VERSIONS" >&2
  done
}

check_only() {
  local suite
  for suite in "${SUITES[@]}"; do
    suite_verified "$suite" || die "$suite is missing or damaged in $TESTBED_CACHE; run fetch.sh"
  done
  report
}

main() {
  case ${1-} in
    -h | --help)
      print_help "${BASH_SOURCE[0]}"
      return 0
      ;;
    --check)
      check_only
      return 0
      ;;
    '') ;;
    *) usage_error "unknown argument: $1" ;;
  esac
  install_tools
  mkdir -p "$TESTBED_CACHE"
  # Two fetches at once would unpack over each other.
  exec 8>"$TESTBED_CACHE/lock"
  flock 8
  local suite
  for suite in "${SUITES[@]}"; do fetch_suite "$suite"; done
  report
}

main "$@"
