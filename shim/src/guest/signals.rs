//! Signals of a guest process.
//!
//! The first process of a pid namespace ignores every signal whose action is the default one, except
//! SIGKILL and SIGSTOP from outside; see pid_namespaces(7). A guest has no handlers of its own, so
//! without this `docker stop` would wait for its grace period to pass.

use std::io;

use super::sys;

/// The standard signals whose default action ends a process and that the engine does not need for
/// traps. SIGPIPE is ignored instead, so that a guest sees `EPIPE`.
const ENDING: [i32; 17] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
];

/// Undoes what the shim's signal settings left over, and lets the first process of a pid namespace
/// end by signals with code 128 + n. In the host's pid namespace the kernel's defaults do that.
pub(super) fn set_up(first_of_namespace: bool) -> io::Result<()> {
    sys::default_signals();
    sys::ignore_signal(libc::SIGPIPE);
    if first_of_namespace {
        for signal in ENDING.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            sys::exit_on_signal(signal)?;
        }
    }
    Ok(())
}
