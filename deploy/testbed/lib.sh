# shellcheck shell=bash disable=SC2034
# SC2034: the scripts that read this file use the names that it does not use itself.
#
# Shared by every script of the test bed: names, paths, what belongs to a bed.
#
# One law of names makes a bed recognisable from outside, also after a crash: everything that a bed called NAME makes in a
# place shared with the machine (network namespaces, cgroups, containerd namespaces) begins with `cb-NAME-`, and everything
# else lies under its run folder. Names hold no dash, so no bed's prefix is the beginning of another's.

# --- messages -------------------------------------------------------------------------------------------------------------

say() { printf 'testbed: %s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# Bad usage has an exit status of its own (2), so that callers can tell it from a failure.
usage_error() {
  say "error: $* (try --help)"
  exit 2
}

# Prints the comment block at the head of a script: one text serves as documentation and as --help.
print_help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$1"; }

# A script that ends because a command failed says where.
set -E
trap 'say "${BASH_SOURCE[0]##*/}:$LINENO: failed: $BASH_COMMAND"' ERR

# --- what a bed is made of ------------------------------------------------------------------------------------------------

# A daemon is named by its kind and version: c = containerd, k = containerd with CRI, as in Kubernetes, d = dockerd;
# g = with the graph-driver image store, s = with the sandbox controllers that 1.7 has behind a switch.
readonly CRI_DAEMONS=(k16 k17 k17s k21)
readonly ALL_DAEMONS=(c16 c17 c21 d26 d26g d28 "${CRI_DAEMONS[@]}")
# A Kubernetes of one node, whose containerd this is the name of (k8s/cluster.sh).
readonly CLUSTER=kube
# Those of a bed that nobody chose daemons for. CRI wants tools that take minutes to build.
readonly DEFAULT_DAEMONS=(c16 c17 c21 d26 d26g d28)
# What fetch.sh unpacks: suites of Debian, and what belongs to one but is apart.
readonly SUITES=(bookworm trixie sid trixie-etcd)

# The Debian suite that a daemon's programs come from.
suite_of() {
  case $1 in
    c16 | k16) echo bookworm ;;
    c17 | k17 | k17s | d26 | d26g) echo trixie ;;
    c21 | k21 | d28 | "$CLUSTER") echo sid ;;
    *) usage_error "no such daemon: $1; known: ${ALL_DAEMONS[*]} $CLUSTER" ;;
  esac
}

# The containerd that a dockerd uses.
containerd_of() {
  case $1 in
    d26 | d26g) echo c17 ;;
    d28) echo c21 ;;
    *) usage_error "not a dockerd: $1" ;;
  esac
}

is_containerd() { [[ $1 == [ck]* ]]; }

is_cri() { [[ $1 == k* ]]; }

# The script that runs `ctr` for a containerd.
ctr_of() { if is_cri "$1"; then echo "$1-ctr"; else echo "$1"; fi; }

# The containerd namespace of a daemon's containers: that of CRI is fixed in it.
namespace_of() { if is_cri "$1"; then echo k8s.io; else echo "$BED_PREFIX$1"; fi; }

# --- paths ----------------------------------------------------------------------------------------------------------------

TESTBED_SOURCE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
TESTBED_CHECKOUT=$(cd -- "$TESTBED_SOURCE/../.." && pwd)
TESTBED_CACHE=${TESTBED_CACHE:-${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/testbed}
# Short, because a socket path has 107 bytes; on disk, because it holds image stores.
TESTBED_ROOT=${TESTBED_ROOT:-/var/lib/coracle-bed}
# Serialises up and down of all beds on a machine: they share /run/netns and /run/containerd.
readonly TESTBED_LOCK=/run/lock/coracle-testbed.lock
# Fixed in containerd's shim protocol; shims of all beds (and of the machine) put their sockets here.
readonly SHIM_SOCKETS=/run/containerd/s
# Fixed in containerd's runc shim: its runc keeps state here, in a folder per containerd namespace.
readonly RUNC_STATE=/run/containerd/runc
# Fixed in `ctr`: the FIFOs of foreground containers.
readonly CTR_FIFOS=/run/containerd/fifo
# Folders outside the run folders that daemons and `ip netns` make, whatever their configuration says; innermost first.
readonly SHARED_FOLDERS=("$SHIM_SOCKETS" "$RUNC_STATE" "$CTR_FIFOS" /run/containerd /run/docker/plugins /run/docker /run/netns
  /var/lib/cni/results /var/lib/cni)
# In the environment of every daemon of a bed, and so of each shim; set to the run folder.
readonly BED_MARK=CORACLE_TESTBED_BED

# Where fetch.sh unpacks a suite.
suite_dir() { echo "$TESTBED_CACHE/suite/$1"; }

# Where the programs are that CRI has to give pods a network.
cni_programs() { echo "$(suite_dir bookworm)/usr/lib/cni"; }

# Where cri-tools.sh puts crictl, critest and attach.
cri_tools_dir() {
  echo "$TESTBED_CACHE/cri-tools-$(cat "$TESTBED_SOURCE"/cri/{go.mod,go.sum,attach/*.go} | sha256sum | cut -c1-12)"
}

# Where k8s-tools.sh puts the programs and images of a cluster.
k8s_tools_dir() {
  echo "$TESTBED_CACHE/k8s-tools-$(cat "$TESTBED_SOURCE"/k8s/{go.mod,go.sum,coredns/*.go} | sha256sum | cut -c1-12)"
}

# Sets BED_NAME, BED_RUN and BED_PREFIX for one bed.
select_bed() {
  [[ $1 =~ ^[a-z0-9]{1,12}$ ]] || usage_error "a bed's name is 1 to 12 of a-z and 0-9, not '$1'"
  [[ $TESTBED_ROOT == /* ]] || usage_error "TESTBED_ROOT must be absolute, not '$TESTBED_ROOT'"
  BED_NAME=$1
  BED_RUN=$TESTBED_ROOT/$1
  BED_PREFIX=cb-$1-
  # The longest socket of a bed is dockerd's …/d26g/exec/libnetwork/<12 hex digits>.sock.
  ((${#BED_RUN} <= 60)) || usage_error "TESTBED_ROOT is too long for unix sockets: $TESTBED_ROOT"
}

# The names of all beds that have a run folder.
list_beds() {
  local dir
  for dir in "$TESTBED_ROOT"/*/; do
    [[ -d $dir ]] && basename "$dir"
  done
  return 0
}

# What the bed needs from the machine: command to look for, Debian package that has it.
readonly TOOLS='runc runc
ip iproute2
iptables iptables
nsenter util-linux
jq jq'

# The packages of the tools that are missing here.
missing_tools() {
  local command package
  while read -r command package; do
    command -v "$command" >/dev/null || echo "$package"
  done <<<"$TOOLS"
}

# Whether everything for these daemons is in place, without the cost of verifying it.
fetched() {
  local daemon
  for daemon in "$@"; do
    [[ -f $(suite_dir "$(suite_of "$daemon")")/VERSIONS ]] || return 1
    [[ $daemon != "$CLUSTER" || -f $(suite_dir trixie-etcd)/VERSIONS ]] || return 1
  done
  [[ -z $(missing_tools) ]]
}

# --- prerequisites --------------------------------------------------------------------------------------------------------

require_root() { ((EUID == 0)) || die "the test bed makes namespaces and mounts: run it as root"; }

# Takes the machine-wide lock for the rest of the script; daemons must be started with descriptor 9 closed.
lock_machine() {
  exec 9>"$TESTBED_LOCK"
  flock 9
}

# --- processes ------------------------------------------------------------------------------------------------------------

# Start time of a process in clock ticks since boot: with the pid it names a process for good. Field 22 of proc(5)'s stat,
# counted after the command name, which may hold blanks and brackets.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086 # split into fields on purpose
  set -- $stat
  echo "${20}"
}

# Whether the process that FILE recorded as "pid start-time" is still there.
recorded_alive() {
  local pid started
  read -r pid started 2>/dev/null <"$1" || return 1
  [[ $(start_time "$pid") == "$started" ]]
}

# This shell and its ancestors: never part of a bed, whatever their environment says.
own_ancestry() {
  local pid=$$
  while ((pid > 1)); do
    echo "$pid"
    pid=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || return 0
  done
}

# "pid parent state" of every process.
process_table() {
  # grep reads, because awk gives up at the first process that is gone when its turn comes.
  { grep -sHE '^(State|PPid):' /proc/[0-9]*/status || true; } |
    awk -F'[/:[:space:]]+' '$5 == "State" { state[$3] = $6 } $5 == "PPid" { print $3, $6, state[$3] }'
}

# The pids of those files below /proc that grep, with these arguments, finds matching. No match is no failure, and neither is
# a process that is gone when its turn comes.
pids_matching() {
  { grep -ls "$@" || true; } | sed -n 's#^/proc/\([0-9]\+\)/.*#\1#p'
}

# Pids whose root file system lies in the bed's run folder, or is an overlay of folders there: containers, whatever else they
# hide. Other mounts tell nothing, since each new mount namespace on the machine begins as a copy that shows the bed's mounts.
pids_by_root() {
  # Fields of mountinfo: id, parent, device, root (names the folder of a bind mount), mount point, ..., options (an overlay's).
  pids_matching -E -- "^[^ ]+ [^ ]+ [^ ]+ ([^ ]*$BED_RUN/[^ ]* / |[^ ]+ / .*$BED_RUN/)" /proc/[0-9]*/mountinfo
}

# Shims that were told to serve one of the bed's containerds, whatever their environment is.
pids_by_command() {
  local pid
  pids_matching -zF -- "$BED_RUN/" /proc/[0-9]*/cmdline | while read -r pid; do
    if [[ $(cat "/proc/$pid/comm" 2>/dev/null) == containerd* ]]; then echo "$pid"; fi
  done
}

# Pids that show by themselves that they are the bed's.
marked_pids() {
  pids_matching -xzF -- "$BED_MARK=$BED_RUN" /proc/[0-9]*/environ
  pids_matching -F -- "/$BED_PREFIX" /proc/[0-9]*/cgroup
  pids_by_command
  pids_by_root
}

# All pids of the bed: the marked ones and their descendants, zombies included.
bed_pids() {
  {
    own_ancestry | sed 's/^/own /'
    marked_pids | sed 's/^/mark /'
    process_table
  } | awk '
    $1 == "own"  { own[$2] = 1; next }
    $1 == "mark" { bed[$2] = 1; next }
    { parent[$1] = $2 }
    END {
      do {
        grown = 0
        for (pid in parent) if (!(pid in bed) && (parent[pid] in bed) && !(parent[pid] in own)) { bed[pid] = 1; grown = 1 }
      } while (grown)
      for (pid in bed) if ((pid in parent) && !(pid in own)) print pid
    }' | sort -n
}

# The pids of the bed's own daemons, as up.sh recorded them, and those of what runs a cluster's node.
daemon_pids() {
  local file
  for file in "$BED_RUN"/pid/*; do
    [[ -f $file ]] && cut -d' ' -f1 "$file"
  done
  node_pids
}

# The first process of a cluster's node, and its units. Those are recorded by the pids that they have there.
node_pids() {
  local first child
  [[ -f $BED_RUN/pid/$CLUSTER ]] || return 0
  first=$(children_of "$(cut -d' ' -f1 "$BED_RUN/pid/$CLUSTER")")
  [[ -n $first ]] || return 0
  echo "$first"
  for child in $(children_of "$first"); do
    if grep -qsxF "$(awk '/^NSpid:/ { print $NF }' "/proc/$child/status")" "$BED_RUN/$CLUSTER"/root/run/node/*.pid; then echo "$child"; fi
  done
}

# The pids of a process's children.
children_of() { process_table | awk -v parent="$1" '$2 == parent { print $1 }'; }

# One line about a process, for messages.
describe_pid() {
  local command
  command=$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | cut -c1-160) || true
  [[ -n $command ]] || command="[$(cat "/proc/$1/comm" 2>/dev/null || echo gone)]"
  echo "$1 $command"
}

# --- cgroups, mounts, namespaces, sockets ---------------------------------------------------------------------------------

# Cgroup folders of the bed in all hierarchies, deepest first.
bed_cgroups() { find /sys/fs/cgroup -depth -type d -path "*/$BED_PREFIX*" 2>/dev/null || true; }

# Mount points under the run folder in this mount namespace, newest first.
bed_mounts() { awk -v run="$BED_RUN/" 'index($5, run) == 1 { print $5 }' /proc/self/mountinfo | tac; }

bed_netns() {
  local path
  for path in /run/netns/"$BED_PREFIX"*; do
    [[ -e $path ]] && basename "$path"
  done
  return 0
}

# Paths of the unix sockets that some process holds, over all named network namespaces (each has a table of its own).
held_sockets() {
  local netns
  {
    cat /proc/net/unix
    for netns in /run/netns/*; do
      [[ ! -e $netns ]] || nsenter --net="$netns" cat /proc/net/unix 2>/dev/null || true
    done
  } | awk 'NF >= 8 { print $8 }'
}

# Shim sockets, newer than the file $1, that no process holds. Looks twice: a socket's file exists a moment before its owner
# shows in the kernel's table.
stale_shim_sockets() {
  local round found=''
  [[ -d $SHIM_SOCKETS ]] || return 0
  for round in 1 2; do
    found=$(find "$SHIM_SOCKETS" -type s -newer "$1" 2>/dev/null | sort | comm -23 - <(held_sockets | sort -u))
    [[ -n $found ]] || return 0
    ((round == 2)) || sleep 0.2
  done
  echo "$found"
}

# FIFO folders of `ctr`, newer than the file $1, that no process has open; looked at twice for the same reason.
stale_fifos() {
  local round found='' open
  [[ -d $CTR_FIFOS ]] || return 0
  for round in 1 2; do
    open=$(find /proc/[0-9]*/fd -lname "$CTR_FIFOS/*" -printf '%l\n' 2>/dev/null | sed 's#/[^/]*$##' | sort -u) || true
    found=$(find "$CTR_FIFOS" -mindepth 1 -maxdepth 1 -newer "$1" 2>/dev/null | sort | comm -23 - <(echo "$open"))
    [[ -n $found ]] || return 0
    ((round == 2)) || sleep 0.2
  done
  echo "$found"
}

# Socket paths that the bed's bundles name (`address` up to containerd 1.7, `bootstrap.json` from 2.0 on).
bundle_sockets() {
  find "$BED_RUN"/[ck]*/state -maxdepth 4 \( -name address -o -name bootstrap.json \) -exec cat {} + 2>/dev/null |
    grep -oE "unix://$SHIM_SOCKETS/[0-9a-f]+" | sed 's#^unix://##' | sort -u || true
}
