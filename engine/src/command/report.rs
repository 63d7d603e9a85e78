//! What a program does at this moment, told to another process that asks by a signal.
//!
//! The process that runs the program describes itself in its handler, as bytes; who asked reads them,
//! and believes none of them.

use std::fmt;

use crate::runtime::{Interrupted, MAX_SIGHT, Place, Sight};
use crate::wasi::LastCall;

/// Most bytes of a description.
pub const MAX_REPORT: usize = LastCall::RAW + MAX_SIGHT;

/// Describes what the interrupted thread of this process does, for [`Report::read`]; gives how many bytes
/// of `out` it is. Safe in a handler of a signal: it allocates nothing and takes no lock.
pub fn describe(at: &Interrupted<'_>, out: &mut [u8]) -> usize {
    let Some((call, sight)) = out.split_first_chunk_mut::<{ LastCall::RAW }>() else { return 0 };
    *call = LastCall::raw();
    LastCall::RAW + at.describe(sight)
}

/// What a program did at one moment. Printed: where it was, its backtrace and what it called last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its frames and its memory.
    pub sight: Sight,
    /// The last call of the host that had ended.
    pub last_call: Option<LastCall>,
}

impl Report {
    /// Reads a description, from whomever it comes; `None` if it is none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Report> {
        let (call, sight) = bytes.split_first_chunk::<{ LastCall::RAW }>()?;
        Some(Report { sight: Sight::read(sight)?, last_call: LastCall::read(*call) })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.sight.place {
            Place::Outside => "runs no WebAssembly on this thread",
            Place::Guest => "in WebAssembly",
            Place::Host => "in a host call",
        })?;
        self.sight.fmt(f)?;
        match &self.last_call {
            Some(call) => write!(f, "\n  last host call that ended: {call}"),
            None => Ok(()),
        }
    }
}
