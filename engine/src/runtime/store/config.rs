//! What an embedder chooses for a store, and why there can be none.

use std::io;

use crate::abi::gc;
use crate::config::MEMORY64_RESERVATION;
use crate::runtime::ceiling::{Ceiling, MemoryLimits};

/// Limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Most bytes of native stack that guest code may use below the outermost call into it. The
    /// thread's real stack bounds it as well, less 256 KiB that stay with the host. Default 1 MiB.
    pub max_wasm_stack: usize,
    /// Most bytes of each linear memory. Default 64 GiB; with 32-bit indices 4 GiB are the most there
    /// can be.
    pub max_memory_bytes: u64,
    /// What all linear memories together are held against. Default none.
    pub ceiling: Option<&'static Ceiling>,
    /// Most elements of each table. Default ten million.
    pub max_table_elements: u64,
    /// Most bytes of memory for structures, arrays and exceptions. Default 3840 MiB, which is also
    /// the most there can be.
    pub max_gc_heap_bytes: u64,
    /// Collect garbage before every allocation of an object: finds references that the collector
    /// does not see. Very slow; for tests. Default off.
    pub gc_stress: bool,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            max_wasm_stack: 1 << 20,
            max_memory_bytes: MEMORY64_RESERVATION,
            ceiling: None,
            max_table_elements: 10_000_000,
            max_gc_heap_bytes: gc::RESERVATION - gc::FIRST_OBJECT as u64,
            gc_stress: false,
        }
    }
}

impl StoreConfig {
    /// How large linear memories may become.
    #[must_use]
    pub fn memory_limits(&self) -> MemoryLimits {
        MemoryLimits { bytes: self.max_memory_bytes, ceiling: self.ceiling }
    }
}

/// Why a store cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum StoreError {
    #[error("cannot install handlers for processor faults: {0}")]
    Handlers(#[source] io::Error),
    #[error("cannot set up the thread's signal stack: {0}")]
    SignalStack(#[source] io::Error),
    #[error("cannot find the bounds of the thread's stack: {0}")]
    Stack(#[source] io::Error),
}
