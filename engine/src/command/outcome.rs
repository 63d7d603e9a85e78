//! How a program ended, and what a person reads of it.

use std::fmt;

use crate::runtime::{CallError, Exception, HostError, InstantiateError, MemoryUse, Store, Trap};
use crate::wasi::preview1::ProcExit;
use crate::wasi::{HandlerFailed, LastCall};

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

/// What a person reads after a trap or an uncaught exception: its kind, where it happened, how much
/// memory the program had, and what it called of its host last.
#[derive(Debug)]
pub struct TrapReport {
    abort: Abort,
    memory: MemoryUse,
    last_call: Option<LastCall>,
}

#[derive(Debug)]
enum Abort {
    Trap(Trap),
    Exception(Exception),
}

impl TrapReport {
    /// The trap, unless it was an exception.
    #[must_use]
    pub fn trap(&self) -> Option<&Trap> {
        match &self.abort {
            Abort::Trap(trap) => Some(trap),
            Abort::Exception(_) => None,
        }
    }

    /// The exception, unless it was a trap.
    #[must_use]
    pub fn exception(&self) -> Option<&Exception> {
        match &self.abort {
            Abort::Trap(_) => None,
            Abort::Exception(exception) => Some(exception),
        }
    }

    /// The memory that the program had then.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        self.memory
    }

    /// The last call of the host that ended before.
    #[must_use]
    pub fn last_call(&self) -> Option<LastCall> {
        self.last_call
    }
}

impl fmt::Display for TrapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.abort {
            Abort::Trap(trap) => trap.fmt(f)?,
            Abort::Exception(exception) => exception.fmt(f)?,
        }
        write!(f, "\n  memory in use: {}", self.memory)?;
        match &self.last_call {
            Some(call) => write!(f, "\n  last host call: {call}"),
            None => f.write_str("\n  last host call: none"),
        }
    }
}

/// The outcome of a call on this thread that came to its end, or of one that did not.
pub(super) fn of(result: Result<(), InstantiateError>, store: &Store) -> Result<Outcome, RunError> {
    let trapped = |abort| {
        let (memory, last_call) = (store.memory_use(), LastCall::now());
        Ok(Outcome::Trapped(TrapReport { abort, memory, last_call }))
    };
    match result {
        Ok(()) => Ok(Outcome::Exited(0)),
        Err(InstantiateError::Failed(CallError::Trap(trap))) => trapped(Abort::Trap(trap)),
        Err(InstantiateError::Failed(CallError::Exception(exception))) => {
            trapped(Abort::Exception(exception))
        }
        Err(InstantiateError::Failed(CallError::Host(error))) => exited(error, store),
        Err(error) => Err(RunError::Link(error)),
    }
}

/// The outcome of a host function's error: the exit that it stands for, or the engine's failure.
fn exited(error: HostError, store: &Store) -> Result<Outcome, RunError> {
    let error = match error.downcast::<HandlerFailed>() {
        // A handler ends the program like any other function of it.
        Ok(failed) => return of(Err(InstantiateError::Failed(failed.0)), store),
        Err(error) => error,
    };
    match error.downcast::<ProcExit>() {
        Ok(exit) => Ok(Outcome::Exited(exit.0)),
        Err(error) => Err(RunError::Host(error)),
    }
}
