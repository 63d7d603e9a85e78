//! How a program ended, and what a person reads of it.

use std::fmt;

use crate::runtime::{CallError, Exception, HostError, InstantiateError, Trap};
use crate::wasi::HandlerFailed;
use crate::wasi::preview1::ProcExit;

use super::RunError;

/// Exit code after a trap: 128 + SIGABRT, what a shell shows for a native program that aborts.
const TRAPPED: u8 = 134;

/// How a program ended.
#[derive(Debug)]
pub enum Outcome {
    /// It returned (0) or called `proc_exit`.
    Exited(u32),
    /// It trapped, or nothing caught an exception that it threw.
    Trapped(TrapReport),
}

impl Outcome {
    /// The exit code of the process: the lowest eight bits of the program's, or 134 for a trap and
    /// an uncaught exception.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Outcome::Exited(code) => code.to_le_bytes()[0],
            Outcome::Trapped(_) => TRAPPED,
        }
    }
}

/// What a person reads after a trap or an uncaught exception: its kind, and where it happened.
#[derive(Debug)]
pub struct TrapReport(Abort);

#[derive(Debug)]
enum Abort {
    Trap(Trap),
    Exception(Exception),
}

impl TrapReport {
    /// The trap, unless it was an exception.
    #[must_use]
    pub fn trap(&self) -> Option<&Trap> {
        match &self.0 {
            Abort::Trap(trap) => Some(trap),
            Abort::Exception(_) => None,
        }
    }

    /// The exception, unless it was a trap.
    #[must_use]
    pub fn exception(&self) -> Option<&Exception> {
        match &self.0 {
            Abort::Trap(_) => None,
            Abort::Exception(exception) => Some(exception),
        }
    }
}

impl fmt::Display for TrapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Abort::Trap(trap) => trap.fmt(f),
            Abort::Exception(exception) => exception.fmt(f),
        }
    }
}

/// The outcome of a call that came to its end, or of one that did not.
pub(super) fn of(result: Result<(), InstantiateError>) -> Result<Outcome, RunError> {
    match result {
        Ok(()) => Ok(Outcome::Exited(0)),
        Err(InstantiateError::Failed(CallError::Trap(trap))) => {
            Ok(Outcome::Trapped(TrapReport(Abort::Trap(trap))))
        }
        Err(InstantiateError::Failed(CallError::Exception(exception))) => {
            Ok(Outcome::Trapped(TrapReport(Abort::Exception(exception))))
        }
        Err(InstantiateError::Failed(CallError::Host(error))) => exited(error),
        Err(error) => Err(RunError::Link(error)),
    }
}

/// The outcome of a host function's error: the exit that it stands for, or the engine's failure.
fn exited(error: HostError) -> Result<Outcome, RunError> {
    let error = match error.downcast::<HandlerFailed>() {
        // A handler ends the program like any other function of it.
        Ok(failed) => return of(Err(InstantiateError::Failed(failed.0))),
        Err(error) => error,
    };
    match error.downcast::<ProcExit>() {
        Ok(exit) => Ok(Outcome::Exited(exit.0)),
        Err(error) => Err(RunError::Host(error)),
    }
}
