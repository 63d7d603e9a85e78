//! What can go wrong with a guest process, as seen by the shim.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::systemd::SystemdError;

/// Why an operation on a guest failed. Each message is one sentence for the user's terminal.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A system call of the shim's half failed.
    #[error("cannot {act}: {source}")]
    Os {
        /// What was tried, with its object.
        act: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A value of the spec cannot be honoured.
    #[error("the container's spec asks for {what}, which {why}")]
    Spec {
        /// The setting, with its value.
        what: String,
        /// What is wrong with it and what would be accepted.
        why: String,
    },
    /// The cgroup could not be made, limited or removed.
    #[error(transparent)]
    Cgroup(#[from] coracle_oci::CgroupError),
    /// systemd did not take the cgroup as its unit.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// The guest's half reported a failure; the sentence is its own.
    #[error("{0}")]
    Refused(String),
    /// The guest process ended although it had more to report.
    #[error("the guest process ended while it was {phase} ({status})")]
    Died {
        /// What it was doing.
        phase: &'static str,
        /// Its exit code or signal.
        status: String,
    },
    /// A hook failed.
    #[error("the {stage} hook {} {why}", path.display())]
    Hook {
        /// The list in the spec that the hook is part of.
        stage: &'static str,
        /// The hook's executable.
        path: PathBuf,
        /// Exit code, signal, time limit or start failure, with the end of its standard error.
        why: String,
    },
    /// The other half sent something that the protocol does not have.
    #[error("the guest process and the shim disagree about their protocol: {0}")]
    Protocol(String),
    /// The guest is past the state in which the call makes sense.
    #[error("cannot {act} a guest that is {state}")]
    State {
        /// The call.
        act: &'static str,
        /// The guest's state.
        state: &'static str,
    },
    /// The guest did not answer in time.
    #[error("the guest process did not finish {phase} within {} s", limit.as_secs())]
    Slow {
        /// What it was doing.
        phase: &'static str,
        /// The time that it had.
        limit: Duration,
    },
}

impl GuestError {
    /// An error of a system call; `act` reads after "cannot".
    pub(crate) fn os(act: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let act = act.into();
        move |source| Self::Os { act, source }
    }
}
