//! From the process that containerd has started to one that stays: a fork with streams, a session and a place in
//! the kernel's order of victims of its own.

use std::fs::File;
use std::io::{self, Read, Write};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid};

/// The highest score there is (`proc_pid_oom_score_adj(5)`).
const MAX_OOM_SCORE: i32 = 1000;

/// Divides this process; `None` in the child, which holds nothing of the streams any more. Both have all the rest.
///
/// This process must have a single thread.
///
/// # Errors
/// When there can be no more processes, or `/dev/null` cannot be opened.
pub(crate) fn divide() -> io::Result<Option<Pid>> {
    // Opened before: what fails must fail where somebody hears of it.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: there is one thread, so no lock is held and nothing half-done by another one; the child may go on like
    // any process.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => {
            // Whoever reads what `start` says reads until nobody holds the other end.
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)?;
            rustix::stdio::dup2_stdin(&null)?;
            Ok(None)
        }
    }
}

/// Ends a child that nobody will ask for anything.
pub(crate) fn end(child: Pid) {
    // It may be gone by itself.
    let _ = kill(child, Signal::SIGTERM);
}

/// Gives this process a session and a score of its own. What cannot be had is told, and no obstacle.
pub(crate) fn settle() {
    // The session of whoever started containerd must not end the shim.
    if let Err(errno) = nix::unistd::setsid() {
        tracing::warn!(%errno, "no session of its own");
    }
    if let Err(error) = set_oom_score() {
        // Refused to a root without CAP_SYS_RESOURCE; everything works without.
        tracing::warn!(%error, "oom score not set");
    }
    // SAFETY: two integers, before there is a second thread. Every thread would else reserve a heap of its own, which
    // a process does not need whose threads take turns.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// One above containerd's own score, which `start` inherited: the shim survives its guests, and
/// containerd survives the shim.
fn set_oom_score() -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open("/proc/self/oom_score_adj")?;
    let mut text = [0; 16];
    let length = file.read(&mut text)?;
    let score = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
    let score: i32 = score.ok_or(io::ErrorKind::InvalidData)?;
    file.write_all((score + 1).min(MAX_OOM_SCORE).to_string().as_bytes())
}
