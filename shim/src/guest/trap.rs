//! How the shim learns the kind of a trap: the exit code says only that there was one.
//!
//! When its program runs, a guest holds nothing of the shim's any more. So it leaves a word that the kernel
//! keeps until the process is reaped: its name. The shim reads it between the end and the reaping. It is a
//! guest's word, for the log and nothing else, and only words that are known count.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::program::TrapKind;
use super::wait::Exit;

/// The exit code of a program that trapped.
const TRAPPED: Exit = Exit::Code(134);
/// What the name begins with; the number of the kind follows, 0 for an exception that nobody caught.
const PREFIX: &str = "trap ";

/// Why a program was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// By a trap of WebAssembly.
    Kind(TrapKind),
    /// It threw an exception that nothing caught.
    Exception,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => kind.fmt(f),
            Self::Exception => f.write_str("uncaught exception"),
        }
    }
}

/// Leaves the word, on the process's first thread.
pub(super) fn leave_word(kind: Option<TrapKind>) {
    let code = kind.map_or(0, TrapKind::code);
    if let Ok(name) = CString::new(format!("{PREFIX}{code}")) {
        // Without it the log says that there was a trap, and not which.
        let _ = rustix::thread::set_name(&name);
    }
}

/// What a process that has ended with this code, and is not reaped yet, left.
pub(super) fn read_word(pidfd: BorrowedFd<'_>, exit: Exit) -> Option<Trap> {
    if exit != TRAPPED {
        return None;
    }
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = facts.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim();
    parse(&std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?)
}

fn parse(name: &str) -> Option<Trap> {
    match name.trim_end().strip_prefix(PREFIX)?.parse().ok()? {
        0 => Some(Trap::Exception),
        code => TrapKind::from_code(code).map(Trap::Kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_count_and_no_others() {
        assert_eq!(parse("trap 10\n"), Some(Trap::Kind(TrapKind::Unreachable)));
        assert_eq!(parse("trap 0\n"), Some(Trap::Exception));
        for name in ["trap\n", "trap 99\n", "trap -1", "traps 1", "", "trap 256"] {
            assert_eq!(parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_word_is_asked_for_only_after_a_trap() {
        use std::os::fd::AsFd;
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "printf 'trap 2' > /proc/self/comm; read x"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let flags = rustix::process::PidfdFlags::empty();
        let pidfd = rustix::process::pidfd_open(pid, flags).unwrap();
        let told = || read_word(pidfd.as_fd(), TRAPPED);
        while told().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(told(), Some(Trap::Kind(TrapKind::MemoryOutOfBounds)));
        assert_eq!(read_word(pidfd.as_fd(), Exit::Code(0)), None);
        assert_eq!(read_word(pidfd.as_fd(), Exit::Signal(6)), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(told(), None);
    }
}
