//! The last call of a guest to its host: what a report says of it.

use std::fmt;

use super::preview1::errno::Errno;
use super::{link, sockets};

/// A function of the host that a guest called, and how the call ended. Printed: `fd_write (badf)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastCall {
    /// As it is imported.
    pub function: &'static str,
    /// The number that the guest got back; 0 is success.
    pub errno: u32,
}

impl LastCall {
    /// Bytes of [`LastCall::raw`].
    pub const RAW: usize = 8;

    /// What this thread's guest called last and got an answer of, for [`LastCall::read`]. Safe in a
    /// handler of a signal.
    #[must_use]
    pub fn raw() -> [u8; Self::RAW] {
        link::last().to_le_bytes()
    }

    /// Reads what [`LastCall::raw`] gave, from whomever it comes: `None` for no call, and for one of a
    /// function that there is not.
    #[must_use]
    pub fn read(raw: [u8; Self::RAW]) -> Option<LastCall> {
        let word = u64::from_le_bytes(raw);
        let (number, errno) = ((word >> 32) as u32, word as u32);
        let function = sockets::names().find(|name| link::number(name) == number)?;
        Some(LastCall { function, errno })
    }

    /// What this thread's guest called last and got an answer of.
    #[must_use]
    pub fn now() -> Option<LastCall> {
        LastCall::read(LastCall::raw())
    }
}

impl fmt::Display for LastCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LastCall { function, errno } = *self;
        match (errno, Errno::from_number(errno)) {
            (0, _) => write!(f, "{function} (success)"),
            (_, Some(name)) => {
                write!(f, "{function} ({})", format!("{name:?}").to_ascii_lowercase())
            }
            (_, None) => write!(f, "{function} (error {errno})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_number_of_its_own() {
        let mut names: Vec<_> = sockets::names().collect();
        names.sort_unstable();
        names.dedup();
        let mut numbers: Vec<_> = names.iter().map(|name| link::number(name)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), names.len());
    }

    #[test]
    fn calls_are_told_by_name_and_garbage_is_none() {
        assert_eq!(LastCall::read([0; 8]), None);
        assert_eq!(LastCall::read([0xff; 8]), None);
        let call = |errno| {
            link::note(link::number("fd_write"), errno);
            LastCall::now().unwrap().to_string()
        };
        assert_eq!(call(0), "fd_write (success)");
        assert_eq!(call(8), "fd_write (badf)");
        assert_eq!(call(76), "fd_write (notcapable)");
        assert_eq!(call(84), "fd_write (error 84)");
    }
}
