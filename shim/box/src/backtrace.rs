//! `backtrace`: where a running WebAssembly program is.

use crate::error::{Failure, reason};
use crate::host::{What, inspect};
use crate::out::{Context, plain};
use crate::proc;

/// Prints the backtrace of each thread of the container's program, or of the one that is named.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let pid = proc::chosen(&words)?;
    let threads = threads(pid)?;
    let several = threads.len() > 1;
    for thread in threads {
        let name = proc::file(pid, &format!("task/{thread}/comm")).unwrap_or_default();
        match inspect(pid, thread, What::Backtrace) {
            Ok(text) => {
                let thread = if several { format!(" thread {thread}") } else { String::new() };
                context.line(format_args!(
                    "{} (pid {pid}{thread}): {}",
                    plain(name.trim_end()),
                    lines(&text)
                ))?;
            }
            // It may have ended meanwhile.
            Err(error) if several => context.fault(&format!("thread {thread}"), &error),
            Err(error) => return Err(failure(pid, &error)),
        }
    }
    Ok(())
}

/// The threads of a process.
pub fn threads(pid: i32) -> Result<Vec<i32>, Failure> {
    proc::threads(pid)
        .map_err(|error| Failure::of(pid, format!("no such process: {}", reason(&error))))
}

/// Why a process did not answer.
pub fn failure(pid: i32, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{PermissionDenied, TimedOut, Unsupported};
    let why = match error.kind() {
        Unsupported => {
            "is no WebAssembly program of this runtime: a Linux program has no such report"
                .to_owned()
        }
        TimedOut => "did not answer within two seconds; is it paused?".to_owned(),
        PermissionDenied => "belongs to another user; exec as that one".to_owned(),
        _ => reason(error),
    };
    Failure::of(pid, why)
}

/// What the program says, line by line: it may be hostile.
fn lines(text: &str) -> String {
    text.split('\n').map(|line| plain(line).into_owned()).collect::<Vec<_>>().join("\n")
}
