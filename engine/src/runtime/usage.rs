//! What the stores of this process hold, in numbers that can be read at any moment: also in a handler
//! of a signal, where no store may be looked into.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::store::{AsStore, Store, get};

/// Bytes of all linear memories.
pub(super) static MEMORY: AtomicU64 = AtomicU64::new(0);
/// Elements of all tables.
static TABLES: AtomicU64 = AtomicU64::new(0);

/// Bytes of a page of linear memory, unless its type says otherwise.
const PAGE: u64 = 1 << 16;

/// Bytes of all linear memories of the process, and elements of all its tables.
pub(super) fn totals() -> (u64, u64) {
    (MEMORY.load(Ordering::Relaxed), TABLES.load(Ordering::Relaxed))
}

/// What one table adds to the total, until it goes.
#[derive(Debug, Default)]
pub(super) struct TableShare(u64);

impl TableShare {
    /// The share of a table of this size.
    pub(super) fn new(elements: u64) -> TableShare {
        let mut share = TableShare(0);
        share.grow(elements);
        share
    }

    /// Adds elements.
    pub(super) fn grow(&mut self, elements: u64) {
        self.0 += elements;
        TABLES.fetch_add(elements, Ordering::Relaxed);
    }
}

impl Drop for TableShare {
    fn drop(&mut self) {
        TABLES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// How much linear memory a store's guests have, and may have. Printed in pages of 64 KiB and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of all linear memories.
    pub bytes: u64,
    /// Most bytes that they may have together: by their types, the store's limits and its
    /// [ceiling](super::Ceiling).
    pub limit: u64,
}

impl fmt::Display for MemoryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryUse { bytes, limit } = *self;
        write!(f, "{} pages ({bytes} bytes) of at most {} pages", bytes / PAGE, limit / PAGE)
    }
}

impl Store {
    /// How much linear memory the guests have.
    #[must_use]
    pub fn memory_use(&self) -> MemoryUse {
        memory_use(self)
    }
}

fn memory_use(store: &impl AsStore) -> MemoryUse {
    let store = get(store);
    let own = store.memory_sizes().fold(MemoryUse::default(), |sum, (bytes, limit)| MemoryUse {
        bytes: sum.bytes + bytes,
        limit: sum.limit.saturating_add(limit),
    });
    let ceiling = store.config.ceiling.map_or(u64::MAX, |ceiling| ceiling.limit());
    MemoryUse { limit: own.limit.min(ceiling), ..own }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Ceiling, Engine, Memory, MemoryType, StoreConfig};

    #[test]
    fn use_and_limit_are_those_of_all_memories_below_the_ceiling() {
        static CEILING: Ceiling = Ceiling::new(|| 9 << 16);
        let config = StoreConfig { ceiling: Some(&CEILING), ..StoreConfig::default() };
        let mut store = Store::with_config(&Engine::new(), config).unwrap();
        assert_eq!(store.memory_use(), MemoryUse::default());
        let memory = Memory::new(&mut store, MemoryType::new(1, Some(3))).unwrap();
        Memory::new(&mut store, MemoryType::new(2, Some(4))).unwrap();
        memory.grow(&mut store, 1).unwrap();
        let seen = store.memory_use();
        assert_eq!(seen, MemoryUse { bytes: 4 << 16, limit: 7 << 16 });
        assert_eq!(seen.to_string(), "4 pages (262144 bytes) of at most 7 pages");
        Memory::new(&mut store, MemoryType::new(0, None)).unwrap();
        assert_eq!(store.memory_use().limit, 9 << 16);
    }
}
