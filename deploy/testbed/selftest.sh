#!/usr/bin/env bash
# usage: selftest.sh
#
# Tests the test bed itself, with a native program under the daemons' own runc: what fails here is the bed's fault.
# Two beds side by side; each daemon runs containers, twice; clean-check must see what is left behind, and nothing when
# nothing is; starts and daemons are killed in the middle; after that the machine must be as it was.
# Prints a line for each check and exits 1 when one failed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

readonly IMAGE=docker.io/library/testbed-hello:latest
readonly GREETING='hello from the test bed'
FAILED=0 COUNT=0

# --- small tools ----------------------------------------------------------------------------------------------------------

# check DESCRIPTION COMMAND...: one line, and the command's output when it fails.
check() {
  local description=$1 output begun
  shift
  begun=$(date +%s%N)
  COUNT=$((COUNT + 1))
  if output=$("$@" 2>&1); then
    printf 'ok %d - %s (%d ms)\n' "$COUNT" "$description" $((($(date +%s%N) - begun) / 1000000))
  else
    FAILED=$((FAILED + 1))
    printf 'not ok %d - %s\n' "$COUNT" "$description"
    printf '%s\n' "$output" | sed 's/^/  # /'
  fi
}

# expect STATUS OUTPUT COMMAND...: exact exit status, exact standard output.
expect() {
  local status=0 output
  output=$("${@:3}") || status=$?
  if [[ $status != "$1" || $output != "$2" ]]; then
    echo "wanted status $1 and '$2', got status $status and '$output'"
    return 1
  fi
}

# refuses TEXT COMMAND...: fails, and says TEXT.
refuses() {
  local output
  output=$("${@:2}" 2>&1) && { echo "went well"; return 1; }
  [[ $output == *"$1"* ]] || { echo "says: $output"; return 1; }
}

# What of the machine a bed must not change; the beds' own folders are clean-check's matter.
fingerprint() {
  awk -v run="$TESTBED_ROOT/" 'index($5, run) != 1 && $5 !~ "^/run/netns" { print $5, $9, $10 }' /proc/self/mountinfo
  ip -brief link
  cat /proc/sys/net/ipv4/ip_forward
  iptables-save | sed '/^#/d; s/\[.*\]//'
}

up() { "$TESTBED_SOURCE/up.sh" --name "$@"; }
down() { "$TESTBED_SOURCE/down.sh" --name "$1"; }
clean() { "$TESTBED_SOURCE/clean-check.sh" --name "$@"; }
client() { "$TESTBED_ROOT/$1/bin/$2" "${@:3}"; }

# Gone: nothing that bears the bed's name, no folder.
gone() {
  clean "$1" && [[ ! -e $TESTBED_ROOT/$1 ]]
}

# --- containers -----------------------------------------------------------------------------------------------------------

# run BED DAEMON ID ARGUMENT...: one container in the foreground, removed at its end.
run() {
  if is_containerd "$2"; then
    client "$1" "$2" run --rm "$IMAGE" "$3" /hello "${@:4}"
  else
    client "$1" "$2" run --rm --interactive --name "$3" "$IMAGE" "${@:4}"
  fi
}

# ctr misses the end of an input that ends before its task exists, and would wait for ever.
run_with_input() {
  { echo "a line"; sleep 1; } | run "$@"
}

run_detached() {
  if is_containerd "$2"; then
    client "$1" "$2" run --detach "$IMAGE" "$3" /hello sleep
  else
    client "$1" "$2" run --detach --name "$3" "$IMAGE" sleep
  fi
}

kill_and_remove() {
  local bed=$1 daemon=$2 id=$3
  run_detached "$bed" "$daemon" "$id"
  if is_containerd "$daemon"; then
    client "$bed" "$daemon" tasks kill --signal SIGKILL "$id"
    # The kill returns before the exit is known; delete refuses until then.
    until client "$bed" "$daemon" tasks delete "$id" 2>/dev/null || [[ $? == 137 ]]; do sleep 0.05; done
    client "$bed" "$daemon" containers delete "$id"
  else
    client "$bed" "$daemon" kill "$id"
    client "$bed" "$daemon" rm --force "$id"
  fi
}

check_daemon() {
  local bed=$1 daemon=$2 round
  for round in 1 2; do
    check "$bed $daemon: greets, round $round" expect 0 "$GREETING" run "$bed" "$daemon" "greet$round"
    check "$bed $daemon: exit status, round $round" expect 42 '' run "$bed" "$daemon" "exit$round" exit 42
  done
  check "$bed $daemon: arguments" expect 0 $'one\ntwo words' run "$bed" "$daemon" args args one 'two words'
  check "$bed $daemon: standard input" expect 0 'a line' run_with_input "$bed" "$daemon" input cat
  check "$bed $daemon: kill" kill_and_remove "$bed" "$daemon" victim
}

# A shim of our name is found in CORACLE_BIN_DIR and nowhere else: here runc's shim under that name.
start_with_shim() {
  mkdir -p "$WORK/bin"
  cp "$(suite_dir trixie)/usr/bin/containerd-shim-runc-v2" "$WORK/bin/containerd-shim-wasm-v1"
  CORACLE_BIN_DIR=$WORK/bin up shim && "$TESTBED_SOURCE/import.sh" --name shim "$WORK/hello.tar"
}

run_by_shim() {
  if is_containerd "$2"; then
    client "$1" "$2" run --rm --runtime io.containerd.wasm.v1 "$IMAGE" byshim
  else
    client "$1" "$2" run --rm --runtime io.containerd.wasm.v1 "$IMAGE"
  fi
}

# One pod of runc's, from its start to its removal. Its container is never started: nothing is to be seen of it but by CRI.
run_pod() {
  local bed=$1 daemon=$2 pod
  printf '{"metadata":{"name":"p","uid":"1","namespace":"n"},"linux":{"cgroup_parent":"/cb-%s-pods"}}' "$bed" >"$WORK/pod.json"
  pod=$(client "$bed" "$daemon" runp --runtime runc "$WORK/pod.json")
  client "$bed" "$daemon" inspectp "$pod" | jq -e '.status.state == "SANDBOX_READY" and (.status.network.ip | startswith("10.88."))'
  [[ -n ${3-} ]] || { client "$bed" "$daemon" stopp "$pod" && client "$bed" "$daemon" rmp "$pod"; }
}

sees_pod() {
  local list kind
  run_pod "$1" "$2" stays
  list=$(clean "$1" --wait 0 2>/dev/null) && return 1
  for kind in process container cgroup mount bundle address; do
    grep -q "^$kind	" <<<"$list" || { echo "no $kind in: $list"; return 1; }
  done
}

# --- what must be noticed -------------------------------------------------------------------------------------------------

# A forgotten container must show in each of the ways that it is there.
sees_leftovers() {
  local bed=$1 daemon=$2 list kind
  run_detached "$bed" "$daemon" forgotten
  list=$(clean "$bed" --wait 0 2>/dev/null) && return 1
  for kind in process container cgroup mount bundle; do
    grep -q "^$kind	" <<<"$list" || { echo "no $kind in: $list"; return 1; }
  done
}

# A running bed shows a dead daemon.
sees_dead_daemon() {
  local list
  kill -KILL "$(cut -d' ' -f1 "$TESTBED_ROOT/$1/pid/$2")"
  list=$(clean "$1" --wait 0 2>/dev/null) && return 1
  grep -qE "^daemon	$2 " <<<"$list"
}

# Makes one leftover of each kind that a bed's containers could leave in a place of its own.
litter() {
  local run=$TESTBED_ROOT/$1
  touch "$run/tmp/left"
  mkdir -p "$run/left" "$run/c17/state/io.containerd.runtime.v2.task/cb-$1-c17/left" /sys/fs/cgroup/pids/"cb-$1-c17"/left /run/containerd/{fifo,s}
  mount -t tmpfs left "$run/left"
  mkfifo -m 600 "$run/fifo" && mkdir "/run/containerd/fifo/left$1"
  ip netns add "cb-$1-left"
  perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die $!' "/run/containerd/s/$(printf %s "$1" | sha256sum | cut -c1-64)"
  # A process with the bed's mark whose child stays a zombie.
  env -i PATH="$PATH" "CORACLE_TESTBED_BED=$run" perl -e 'fork or exit; sleep 60' >/dev/null 2>&1 </dev/null &
  disown
}

sees_litter() {
  local list kind
  litter "$1"
  sleep 0.3
  list=$(clean "$1" --wait 0 2>/dev/null) && return 1
  for kind in process zombie cgroup mount netns socket fifo bundle temp; do
    grep -q "^$kind	" <<<"$list" || { echo "no $kind in: $list"; return 1; }
  done
}

# --- crashes --------------------------------------------------------------------------------------------------------------

# Kills a start after so many milliseconds; down must then undo whatever there is.
kill_start() {
  local bed=$1 delay=$2 pid
  "$TESTBED_SOURCE/up.sh" --name "$bed" >/dev/null 2>&1 &
  pid=$!
  sleep "$(printf '0.%03d' "$delay")"
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null || true
  down "$bed" && gone "$bed"
}

# Everything of a bed with running and frozen containers dies at once, then down.
kill_everything() {
  local bed=$1 daemon pids
  for daemon in "${DEFAULT_DAEMONS[@]}"; do run_detached "$bed" "$daemon" running; done
  client "$bed" d26 pause running
  mapfile -t pids < <(
    select_bed "$bed"
    daemon_pids
    bed_pids | while read -r pid; do
      if [[ $(cat "/proc/$pid/comm") == containerd-shim* ]]; then echo "$pid"; fi
    done
  )
  kill -KILL "${pids[@]}"
  down "$bed" && gone "$bed"
}

with() { "$TESTBED_SOURCE/with.sh" --daemons c17 "$@"; }

# with.sh ended by a signal takes its bed along; by SIGKILL it cannot, and the next with.sh does it.
with_signalled() {
  local signal=$1 wanted=$2 pid status=0
  "$TESTBED_SOURCE/with.sh" --name wsig --daemons c17 -- sleep 5 >/dev/null 2>&1 &
  pid=$!
  until [[ -f $TESTBED_ROOT/wsig/testbed.env ]]; do sleep 0.05; done
  sleep 0.2
  kill "-$signal" "$pid"
  wait "$pid" || status=$?
  [[ $status == "$wanted" ]] || { echo "wanted status $wanted, got $status"; return 1; }
  if [[ $signal == KILL ]]; then with --name wnext -- true; fi
  gone wsig
}

# --- the run --------------------------------------------------------------------------------------------------------------

finish() {
  local status=$? bed
  for bed in one two shim pods crash wsig wnext wcode wleft; do
    if [[ -e $TESTBED_ROOT/$bed ]]; then down "$bed" || true; fi
  done
  rm -rf -- "$WORK"
  exit "$status"
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
  require_root
  WORK=$(mktemp -d)
  trap finish EXIT
  # Beds of its own, beside those that others use: names are free here.
  TESTBED_ROOT=/var/lib/coracle-bed-selftest
  export TESTBED_ROOT
  local before daemon delay
  before=$(fingerprint)

  check 'programs are fetched' "$TESTBED_SOURCE/fetch.sh"
  check 'programs are verified' "$TESTBED_SOURCE/fetch.sh" --check
  check 'a native image is packed' "$TESTBED_SOURCE/native/pack.sh" "$WORK/hello.tar"
  check 'bed one starts' up one
  check 'bed two starts beside it' up two
  check 'starting a running bed does nothing' up one
  check 'a fresh bed is clean' clean one
  check 'what is no image is refused' refuses 'not a tar file' "$TESTBED_SOURCE/import.sh" --name one "$TESTBED_SOURCE/lib.sh"
  check 'a missing image is refused' refuses 'no such image' "$TESTBED_SOURCE/import.sh" --name one "$WORK/none"
  check 'a folder that is no layout is refused' refuses 'no index.json' "$TESTBED_SOURCE/import.sh" --name one "$TESTBED_SOURCE"
  check 'a bad name is refused' refuses "a bed's name is" "$TESTBED_SOURCE/up.sh" --name ../one
  check 'an unknown daemon is refused' refuses 'no such daemon' "$TESTBED_SOURCE/up.sh" --name three --daemons c99
  check 'image into bed one' "$TESTBED_SOURCE/import.sh" --name one "$WORK/hello.tar"
  check 'image into bed two' "$TESTBED_SOURCE/import.sh" --name two "$WORK/hello.tar"
  for daemon in "${DEFAULT_DAEMONS[@]}"; do
    check_daemon one "$daemon"
    check_daemon two "$daemon"
  done
  check 'bed one is clean after its containers' clean one --wait 10
  check 'bed two is clean after its containers' clean two --wait 10
  for daemon in "${DEFAULT_DAEMONS[@]}"; do
    check "a container left under $daemon is seen" sees_leftovers one "$daemon"
  done
  check 'bed two is clean beside it' clean two
  check 'leftovers of every kind are seen' sees_litter one
  check 'bed one goes down with containers in it' down one
  check 'bed one is gone' gone one
  check 'bed two still runs containers' expect 0 "$GREETING" run two d28 after
  check 'a dead daemon is seen' sees_dead_daemon two d26
  check 'a bed with a dead daemon is renewed' up two
  check 'the renewed bed is clean' clean two
  check 'bed two goes down' down two
  check 'a bed starts with a shim of its own' start_with_shim
  for daemon in "${DEFAULT_DAEMONS[@]}"; do
    check "$daemon runs the shim of CORACLE_BIN_DIR" expect 0 "$GREETING" run_by_shim shim "$daemon"
  done
  check 'it is clean after that' clean shim
  check 'it goes down' down shim
  check 'a bed with CRI starts' up pods --daemons "$(IFS=,; echo "${CRI_DAEMONS[*]}")"
  for daemon in "${CRI_DAEMONS[@]}"; do
    check "$daemon: a pod" run_pod pods "$daemon"
  done
  check 'it is clean after the pods' clean pods --wait 10
  for daemon in "${CRI_DAEMONS[@]}"; do
    check "a pod left under $daemon is seen" sees_pod pods "$daemon"
  done
  check 'it goes down with pods in it' down pods
  check 'it is gone' gone pods
  for delay in 50 150 250 400 700; do
    check "a start killed after $delay ms leaves nothing" kill_start crash "$delay"
  done
  check 'bed for the crash starts' up crash
  check 'image into it' "$TESTBED_SOURCE/import.sh" --name crash "$WORK/hello.tar"
  check 'a bed killed in the middle leaves nothing' kill_everything crash
  check 'with.sh keeps the exit status' expect 7 '' with --name wcode -- sh -c 'exit 7'
  check 'with.sh takes its bed down' gone wcode
  # shellcheck disable=SC2016 # for the inner shell to expand
  check 'with.sh passes the environment and input' expect 0 '1.7.24 x' with --name wcode -- sh -c 'read -r a; echo "$TESTBED_C17_VERSION $a"' <<<x
  # shellcheck disable=SC2016
  check 'with.sh fails when something is left' expect 1 '' bash -c '"$0" --name wleft --daemons c17 -- sh -c "touch \$TESTBED_RUN/tmp/left" >/dev/null' "$TESTBED_SOURCE/with.sh"
  check 'with.sh and SIGTERM' with_signalled TERM 143
  check 'with.sh and SIGHUP' with_signalled HUP 129
  check 'with.sh and SIGKILL' with_signalled KILL 137
  check 'the machine is as it was' expect 0 "$before" fingerprint
  check 'no folder is left' test ! -e "$TESTBED_ROOT"

  printf '%d checks, %d failed\n' "$COUNT" "$FAILED"
  ((FAILED == 0)) || exit 1
}

main "$@"
