//! Signals of a guest process.
//!
//! The first process of a pid namespace ignores every signal whose action is the default one, except
//! SIGKILL and SIGSTOP from outside; see pid_namespaces(7). A guest has no handlers of its own, so
//! without this `docker stop` would wait for its grace period to pass.

use std::io;

use super::{stop, sys};

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
/// end by signals with code 128 + n. In the host's pid namespace the kernel's defaults do that. Each signal
/// is set once: those that a program can take part in get their final handler.
pub(super) fn set_up(first_of_namespace: bool) -> io::Result<()> {
    if first_of_namespace {
        stop::take_signals()?;
    }
    for signal in 1..=libc::SIGRTMAX() {
        let ending = ENDING.contains(&signal) || signal >= libc::SIGRTMIN();
        if signal == libc::SIGPIPE {
            sys::ignore_signal(signal);
        } else if signal == sys::query::signal() {
            // Ends the process unless it is a question.
            sys::query::answer_queries()?;
        } else if !(first_of_namespace && ending) {
            // The kernel refuses to, or it needs no change.
            if !matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
                sys::default_signal(signal);
            }
        } else if !stop::takes(signal) {
            sys::on_signal(signal, sys::end)?;
        }
    }
    sys::unblock_signals();
    Ok(())
}
