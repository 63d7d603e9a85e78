# shellcheck shell=bash
#
# An apt of our own, for suites that are not the machine's: configuration, lists and cache apart, so that the machine's own
# apt never sees them. Read after lib.sh.

readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirror of the machine's Debian: the first plain (not security) Debian source with the component main.
machine_mirror() {
  # shellcheck disable=SC2016 # names for apt to expand
  apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
    awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 == "main" && !found { print $4; found = 1 }'
}

find_mirror() {
  local mirror
  mirror=$(machine_mirror)
  if [[ -z $mirror ]]; then
    # Origin and label come from downloaded lists; a fresh image has none.
    require_root
    say "reading this machine's package lists"
    apt-get update -qq
    mirror=$(machine_mirror)
  fi
  [[ -n $mirror ]] || die "this machine's apt sources name no Debian mirror"
  echo "$mirror"
}

# How the machine reaches its mirror (proxies, time-outs) holds for us too; the rest of its configuration, hooks above all,
# does not.
machine_transport() { apt-config dump | grep -E '^Acquire::(https?|Retries|ForceIPv[46])' || true; }

# Writes the configuration and the source list of one suite.
configure_apt() {
  local suite=$1 mirror=$2 dir=$3 options="signed-by=$KEYRING"
  mkdir -p "$dir"/{etc/empty.d,state/lists/partial,cache/archives/partial}
  : >"$dir/state/status"
  : >"$dir/etc/empty"
  # The mirror's copy of sid may be older than its Release file allows. Signatures still hold; only freshness is given up.
  [[ $suite != sid ]] || options+=' check-valid-until=no'
  echo "deb [$options] $mirror $suite main" >"$dir/etc/sources.list"
  {
    machine_transport
    printf '%s "%s";\n' \
      Dir::Etc::sourcelist "$dir/etc/sources.list" Dir::Etc::sourceparts "$dir/etc/empty.d" \
      Dir::Etc::main "$dir/etc/empty" Dir::Etc::parts "$dir/etc/empty.d" \
      Dir::Etc::preferences "$dir/etc/empty" Dir::Etc::preferencesparts "$dir/etc/empty.d" \
      Dir::State "$dir/state" Dir::State::status "$dir/state/status" Dir::Cache "$dir/cache" \
      Acquire::Languages none APT::Get::List-Cleanup false
    # The cache may lie in root's home, where apt's own download user cannot write.
    echo 'APT::Sandbox::User "root";'
  } >"$dir/etc/apt.conf"
}
