//! The built-in sleeper that holds a pod's namespaces open.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Exit code of a pause container that could not sleep; its pod then ends visibly.
const CANNOT_SLEEP: u8 = 1;

/// A process that takes its signals one by one instead of acting on them.
#[derive(Debug)]
pub(super) struct Sleeper {
    awaited: SigSet,
}

impl Sleeper {
    /// Blocks the signals that [`Sleeper::sleep`] takes. None is lost from here on, so this comes
    /// before anybody is told that the container runs.
    pub(super) fn new() -> nix::Result<Self> {
        let mut awaited = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
            awaited.add(signal);
        }
        awaited.thread_block()?;
        Ok(Self { awaited })
    }

    /// Sleeps until SIGTERM or SIGINT, and reaps what is re-parented to it, as the first process of
    /// a pid namespace that a pod may share must. Returns the exit code, 0 for an orderly end.
    pub(super) fn sleep(self) -> u8 {
        loop {
            match self.awaited.wait() {
                Ok(Signal::SIGCHLD) => reap_all(),
                Ok(_) => return 0,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return CANNOT_SLEEP,
            }
        }
    }
}

fn reap_all() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}
