//! Why there is no code, and what the end of a worker says about it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::config::CompileLimits;

use super::COMPILER;

/// Why there is no code image.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler's executable is not there.
    #[error(
        "cannot find the compiler {COMPILER}: put it beside the shim or into PATH, or set CORACLE_BIN"
    )]
    NoCompiler,
    /// A system call of the preparation failed.
    #[error("cannot {act} for the compiler: {source}")]
    Os {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The worker's cgroup cannot be had.
    #[error("cannot make a cgroup for the compiler: {0}")]
    Group(#[from] coracle_oci::CgroupError),
    /// It took more memory than it may.
    #[error(
        "cannot compile {origin}: it takes more than {mib} MiB of memory, the runtime option CompileMemoryMiB sets the limit"
    )]
    TooLarge {
        /// Where the module came from.
        origin: String,
        /// The limit.
        mib: u64,
    },
    /// The compiler said what is wrong with the module.
    #[error("cannot compile {origin}: {reason}")]
    Rejected {
        /// Where the module came from.
        origin: String,
        /// The compiler's sentence.
        reason: String,
    },
    /// The compiler ended without a word.
    #[error("cannot compile {origin}: the compiler {how}")]
    Broken {
        /// Where the module came from.
        origin: String,
        /// How it ended.
        how: String,
    },
    /// The compiler was killed, by the kernel for want of memory or by somebody else.
    #[error(
        "cannot compile {origin}: the compiler was killed, perhaps because the machine has no memory left"
    )]
    Killed {
        /// Where the module came from.
        origin: String,
    },
    /// The time was up.
    #[error(
        "cannot compile {origin}: not done after {seconds} s, the runtime option CompileTimeoutSeconds sets the limit"
    )]
    TooSlow {
        /// Where the module came from.
        origin: String,
        /// The limit in seconds.
        seconds: u64,
    },
    /// What came back is no code image.
    #[error("cannot use the code of {origin}: {reason}")]
    BadImage {
        /// Where the module came from.
        origin: String,
        /// What the check found.
        reason: String,
    },
    /// The task ended first.
    #[error("the task ended while {origin} was being compiled")]
    Cancelled {
        /// Where the module came from.
        origin: String,
    },
}

/// What the worker's end means; `line` is what it said.
pub(super) fn failure(
    origin: String,
    status: ExitStatus,
    line: &str,
    limits: &CompileLimits,
) -> CompileError {
    let how = match status.signal() {
        Some(libc::SIGKILL) => return CompileError::Killed { origin },
        Some(libc::SIGXCPU) => "used up its processor time".to_owned(),
        Some(libc::SIGXFSZ) => format!("made more than {} MiB of code", limits.output >> 20),
        Some(libc::SIGABRT) => {
            format!("gave up, perhaps for want of memory beyond {} MiB", limits.memory >> 20)
        }
        Some(signal) => format!("was ended by signal {signal}"),
        None => {
            let reason = line.lines().map(str::trim).find(|line| !line.is_empty());
            match reason {
                Some(reason) => {
                    return CompileError::Rejected { origin, reason: reason.to_owned() };
                }
                None => format!("ended with exit code {}", status.code().unwrap_or_default()),
            }
        }
    };
    CompileError::Broken { origin, how }
}

pub(super) fn os(act: &'static str) -> impl FnOnce(io::Error) -> CompileError {
    move |source| CompileError::Os { act, source }
}
