//! One limit over all linear memories of a process, which may change while they live.

use std::sync::atomic::{AtomicU64, Ordering};

use super::usage;

/// Most bytes that the linear memories together may have, asked for anew at each growth: a container's
/// limit, less what the process needs besides. Growth over it fails as the core specification lets it
/// (`memory.grow` gives -1), where the kernel would end the process.
///
/// Static, since memories may be anybody's for as long as the process lives.
#[derive(Debug)]
pub struct Ceiling {
    limit: fn() -> u64,
    used: AtomicU64,
}

impl Ceiling {
    /// A ceiling at what `limit` says, in bytes.
    #[must_use]
    pub const fn new(limit: fn() -> u64) -> Ceiling {
        Ceiling { limit, used: AtomicU64::new(0) }
    }

    /// Bytes that all memories under it have.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Most bytes that they may have now.
    #[must_use]
    pub fn limit(&self) -> u64 {
        (self.limit)()
    }

    fn take(&self, bytes: u64) -> bool {
        let limit = (self.limit)();
        let fits = |used: u64| used.checked_add(bytes).filter(|&used| used <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

impl PartialEq for Ceiling {
    /// Whether it is the same one.
    fn eq(&self, other: &Ceiling) -> bool {
        std::ptr::eq(self, other)
    }
}
impl Eq for Ceiling {}

/// How large linear memories may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Most bytes of each.
    pub bytes: u64,
    /// What all of them together are held against.
    pub ceiling: Option<&'static Ceiling>,
}

impl From<u64> for MemoryLimits {
    /// So many bytes, and no ceiling.
    fn from(bytes: u64) -> MemoryLimits {
        MemoryLimits { bytes, ceiling: None }
    }
}

/// What one memory has taken of a ceiling; given back when it goes.
#[derive(Debug)]
pub(super) struct Share {
    ceiling: Option<&'static Ceiling>,
    taken: AtomicU64,
}

impl Share {
    pub(super) fn new(ceiling: Option<&'static Ceiling>) -> Share {
        Share { ceiling, taken: AtomicU64::new(0) }
    }

    /// The ceiling that it is part of.
    pub(super) fn ceiling(&self) -> Option<&'static Ceiling> {
        self.ceiling
    }

    /// Takes more; `false` if that goes over the ceiling.
    pub(super) fn take(&self, bytes: u64) -> bool {
        // Nothing fits also below a limit that has come down.
        let taken = bytes == 0 || self.ceiling.is_none_or(|ceiling| ceiling.take(bytes));
        if taken {
            usage::MEMORY.fetch_add(bytes, Ordering::Relaxed);
            self.taken.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Gives some back that turned out not to be had.
    pub(super) fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
        usage::MEMORY.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(ceiling) = self.ceiling {
            ceiling.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let all = *self.taken.get_mut();
        self.give_back(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LIMIT: AtomicU64 = AtomicU64::new(100);
    static CEILING: Ceiling = Ceiling::new(|| LIMIT.load(Ordering::Relaxed));

    #[test]
    fn shares_stay_below_a_ceiling_that_moves() {
        let (one, other) = (Share::new(Some(&CEILING)), Share::new(Some(&CEILING)));
        assert!(one.take(60) && other.take(40));
        assert!(!one.take(1));
        LIMIT.store(110, Ordering::Relaxed);
        assert!(one.take(10) && !other.take(1));
        // Lowered: nothing is taken away, and nothing more is given.
        LIMIT.store(50, Ordering::Relaxed);
        assert!(!one.take(1) && one.take(0));
        drop(one);
        assert_eq!(CEILING.used(), 40);
        assert!(other.take(10) && !other.take(1));
        assert!(!other.take(u64::MAX));
        drop(other);
        assert_eq!(CEILING.used(), 0);
        assert!(Share::new(None).take(u64::MAX));
    }
}
