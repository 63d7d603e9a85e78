#!/usr/bin/env bash
# usage: with.sh [--name NAME] [--daemons LIST] [--] COMMAND [ARGUMENT]...
#
# Starts a test bed, runs COMMAND with the bed's testbed.env in its environment, and takes the bed down in any case.
# Ends with COMMAND's exit status. Without --name the bed has a name of its own, so that any number can run side by side.
# After the command it names what its containers left behind (clean-check.sh); that turns success into status 1.
#
#   --name, --daemons  as for up.sh
#   --keep             leave the bed running when COMMAND fails
#
# Environment: as for up.sh, and
#   TESTBED_LOGS       a folder that the daemons' logs are copied to when COMMAND fails
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

parse_arguments() {
  NAME=t$$ KEEP='' UP_ARGUMENTS=() COMMAND=()
  while (($#)); do
    case $1 in
      -h | --help)
        print_help "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --name)
        NAME=${2-}
        shift
        ;;
      --daemons)
        UP_ARGUMENTS+=(--daemons "${2-}")
        shift
        ;;
      --keep) KEEP=yes ;;
      --)
        shift
        break
        ;;
      -*) usage_error "unknown argument: $1" ;;
      *) break ;;
    esac
    shift
  done
  COMMAND=("$@")
  ((${#COMMAND[@]})) || usage_error "no command given"
}

# Ends the command, at first politely.
# shellcheck disable=SC2317 # reached by the trap
end_command() {
  local deadline=$((SECONDS + 10))
  kill -TERM "$CHILD" 2>/dev/null || return 0
  while kill -0 "$CHILD" 2>/dev/null && ((SECONDS < deadline)); do sleep 0.05; done
  kill -KILL "$CHILD" 2>/dev/null || true
}

# shellcheck disable=SC2317 # reached by the trap
save_logs() {
  [[ -n ${TESTBED_LOGS-} && -d $BED_RUN/log ]] || return 0
  mkdir -p "$TESTBED_LOGS"
  cp "$BED_RUN"/log/* "$TESTBED_LOGS"/
  say "the daemons' logs are in $TESTBED_LOGS"
}

# Runs on every way out; $? is the status we leave with. Further signals must not interrupt it.
# shellcheck disable=SC2317 # reached by the trap
finish() {
  local status=$?
  trap - EXIT
  trap '' INT TERM HUP
  [[ -z ${CHILD-} ]] || end_command
  ((status == 0)) || save_logs || true
  if ((status != 0)) && [[ -n $KEEP ]]; then
    say "bed $NAME is kept; take it down with: $TESTBED_SOURCE/down.sh --name $NAME"
  else
    "$TESTBED_SOURCE/down.sh" --name "$NAME" || status=1
  fi
  exit "$status"
}

# In the background, because bash runs no trap while a command is in the foreground: a signal must reach us at once.
run_command() {
  local status=0
  "${COMMAND[@]}" <&0 &
  CHILD=$!
  wait "$CHILD" || status=$?
  CHILD=''
  return "$status"
}

main() {
  parse_arguments "$@"
  require_root
  select_bed "$NAME"
  "$TESTBED_SOURCE/down.sh" --stale
  trap finish EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  local env status=0
  env=$("$TESTBED_SOURCE/up.sh" --name "$NAME" --owner $$ "${UP_ARGUMENTS[@]}")
  set -a
  # shellcheck source=/dev/null
  . "$env"
  set +a
  run_command || status=$?
  # Not where somebody wants to look at it.
  if [[ " $TESTBED_DAEMONS " == *" $CLUSTER "* ]] && { ((!status)) || [[ -z $KEEP ]]; }; then "$TESTBED_SOURCE/k8s/quiesce.sh" --name "$NAME" || ((status)) || status=1; fi
  # A shim stays until the code of a first start is in the cache.
  "$TESTBED_SOURCE/clean-check.sh" --name "$NAME" --wait 150 || ((status)) || status=1
  exit "$status"
}

main "$@"
