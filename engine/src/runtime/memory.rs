//! Linear memories: reservation, guards, growth; and the handle that embedders use.
//!
//! ```text
//! guard before │ 4 GiB reservation: length bytes accessible, the rest not │ 2 GiB guard
//!              ▲ base
//! ```
//!
//! All of it is reserved at once and inaccessible, so that the base never moves and an access with
//! a 32-bit index and a static offset below the guard's size needs no check. Growing makes more of
//! the reservation accessible.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use super::store::{AsStore, StoreId, get, get_mut};
use super::sys::Mapping;
use super::vmcontext::{MemoryDef, Stable};
use crate::config::{DEDICATED_BASE, MEMORY_GUARD, MEMORY_RESERVATION};
use crate::module::types::MemoryType;

/// Inaccessible bytes before a memory, against an address computed too low.
const GUARD_BEFORE: usize = 2 << 30;
/// The same before a memory at the fixed address, where the executable and its heap lie lower.
const DEDICATED_GUARD_BEFORE: usize = 16 << 20;

/// Why a memory cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum MemoryError {
    #[error(
        "cannot reserve {bytes} bytes of address space for a linear memory: {source}; check the limit on address space (ulimit -v) and vm.overcommit_memory"
    )]
    Reserve { bytes: usize, source: io::Error },
    #[error(
        "cannot reserve linear memory at the fixed address {DEDICATED_BASE:#x}: {0}; compile with generic addressing to place it anywhere"
    )]
    FixedAddress(#[source] io::Error),
    #[error(
        "a second instance with dedicated addressing in one process; compile with generic addressing for several"
    )]
    SecondDedicated,
    #[error("cannot make {bytes} bytes of linear memory accessible: {source}")]
    Commit { bytes: usize, source: io::Error },
    #[error("cannot map the initial contents of linear memory: {0}")]
    Image(#[source] io::Error),
    #[error("linear memory of {pages} pages is over the limit of {limit} bytes")]
    Limit { pages: u64, limit: u64 },
    #[error("linear memory with 64-bit indices or shared between threads is not supported")]
    Unsupported,
}

/// Where a memory is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    Anywhere,
    Dedicated,
}

/// The right to the fixed address: one at a time in a process.
#[derive(Debug)]
struct DedicatedClaim;

static DEDICATED_TAKEN: AtomicBool = AtomicBool::new(false);

impl DedicatedClaim {
    fn take() -> Result<DedicatedClaim, MemoryError> {
        match DEDICATED_TAKEN.swap(true, Ordering::AcqRel) {
            true => Err(MemoryError::SecondDedicated),
            false => Ok(DedicatedClaim),
        }
    }
}

impl Drop for DedicatedClaim {
    fn drop(&mut self) {
        DEDICATED_TAKEN.store(false, Ordering::Release);
    }
}

/// A linear memory. Its definition, which compiled code reads, lies in the defining instance's
/// context or, for one that the host made, beside it.
#[derive(Debug)]
pub(super) struct LinearMemory {
    reservation: Mapping,
    guard_before: usize,
    /// Accessible bytes.
    length: usize,
    ty: MemoryType,
    /// Most bytes, whatever the type allows.
    limit: u64,
    def: NonNull<MemoryDef>,
    own_def: Option<Stable<MemoryDef>>,
    // Dropped after the reservation: fields drop in order.
    _claim: Option<DedicatedClaim>,
}

impl LinearMemory {
    /// A memory of the type's minimum size, all zero. `limit` is the most bytes that it may have.
    pub(super) fn new(
        ty: MemoryType,
        placement: Placement,
        limit: u64,
    ) -> Result<LinearMemory, MemoryError> {
        if ty.memory64 || ty.shared {
            return Err(MemoryError::Unsupported);
        }
        let limit = limit.min(MEMORY_RESERVATION);
        let length = ty
            .min
            .checked_mul(1 << ty.page_size_log2)
            .filter(|&bytes| bytes <= limit)
            .ok_or(MemoryError::Limit { pages: ty.min, limit })? as usize;
        let (reservation, guard_before, claim) = reserve(placement)?;
        let memory = LinearMemory {
            reservation,
            guard_before,
            length,
            ty,
            limit,
            def: NonNull::dangling(),
            own_def: None,
            _claim: claim,
        };
        memory.commit(0..length).map_err(|source| MemoryError::Commit { bytes: length, source })?;
        Ok(memory)
    }

    /// Address of byte 0.
    fn base(&self) -> *mut u8 {
        self.reservation.as_ptr().wrapping_add(self.guard_before)
    }

    fn commit(&self, range: Range<usize>) -> io::Result<()> {
        let page = super::sys::page_size();
        let start = self.guard_before + range.start.next_multiple_of(page);
        let end = self.guard_before + range.end.next_multiple_of(page);
        self.reservation.make_writable(start..end)
    }

    /// Maps part of the initial contents from an image file: shared pages, copied when written.
    pub(super) fn map_image(
        &mut self,
        guest: Range<u64>,
        file: &std::fs::File,
        offset: u64,
    ) -> Result<(), MemoryError> {
        assert!(guest.end <= self.length as u64, "images lie within the initial size");
        let range =
            self.guard_before + guest.start as usize..self.guard_before + guest.end as usize;
        self.reservation.overlay_file(range, file, offset).map_err(MemoryError::Image)
    }

    /// Lets the definition lie at `def` from now on, and fills it in.
    ///
    /// # Safety
    /// `def` must be valid for writes as long as this memory lives.
    pub(super) unsafe fn attach(&mut self, def: NonNull<MemoryDef>) {
        self.def = def;
        self.publish();
    }

    /// Keeps the definition beside the memory: for memories of the host.
    pub(super) fn attach_own(&mut self) {
        let own = Stable::new(Box::new(MemoryDef { base: std::ptr::null_mut(), length: 0 }));
        self.def = own.pointer();
        self.own_def = Some(own);
        self.publish();
    }

    fn publish(&mut self) {
        let def = MemoryDef { base: self.base(), length: self.length };
        // SAFETY: `attach` was given a place that is valid for writes; only this thread uses it,
        // and no compiled code runs while the host holds `&mut self`.
        unsafe { self.def.write(def) };
    }

    /// What compiled code reads.
    pub(super) fn def(&self) -> NonNull<MemoryDef> {
        self.def
    }

    /// The type, with the current size as its minimum: what an import of it is matched against.
    pub(super) fn current_type(&self) -> MemoryType {
        MemoryType { min: self.pages(), ..self.ty }
    }

    /// Current size in pages.
    pub(super) fn pages(&self) -> u64 {
        (self.length as u64) >> self.ty.page_size_log2
    }

    /// Grows by `delta` pages; the previous size in pages, or `None` when a limit or the system
    /// forbids it.
    pub(super) fn grow(&mut self, delta: u64) -> Option<u64> {
        let old = self.pages();
        let max = self.ty.max.unwrap_or(u64::MAX);
        let pages = old.checked_add(delta).filter(|&pages| pages <= max)?;
        let bytes = pages.checked_mul(1 << self.ty.page_size_log2);
        let length = bytes.filter(|&bytes| bytes <= self.limit)? as usize;
        self.commit(self.length..length).ok()?;
        self.length = length;
        self.publish();
        Some(old)
    }

    /// The accessible bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes from the base are committed, and nobody writes to them while the
        // store, and with it this memory, is borrowed.
        unsafe { std::slice::from_raw_parts(self.base(), self.length) }
    }

    /// The accessible bytes.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base(), self.length) }
    }

    /// Whether an access that faulted at `address` hit the inaccessible part of this memory's
    /// reservation. Runs inside the signal handler.
    pub(super) fn guards(&self, address: usize) -> bool {
        let start = self.reservation.address();
        let base = start + self.guard_before;
        let reserved = (start..start + self.reservation.len()).contains(&address);
        reserved && !(base..base + self.length).contains(&address)
    }
}

fn reserve(placement: Placement) -> Result<(Mapping, usize, Option<DedicatedClaim>), MemoryError> {
    let after = (MEMORY_RESERVATION + MEMORY_GUARD) as usize;
    match placement {
        Placement::Anywhere => {
            let bytes = GUARD_BEFORE + after;
            let reservation =
                Mapping::reserve(bytes).map_err(|source| MemoryError::Reserve { bytes, source })?;
            Ok((reservation, GUARD_BEFORE, None))
        }
        Placement::Dedicated => {
            let claim = DedicatedClaim::take()?;
            let start = DEDICATED_BASE as usize - DEDICATED_GUARD_BEFORE;
            let reservation = Mapping::reserve_at(start, DEDICATED_GUARD_BEFORE + after)
                .map_err(MemoryError::FixedAddress)?;
            Ok((reservation, DEDICATED_GUARD_BEFORE, Some(claim)))
        }
    }
}

/// A linear memory of a store. A copyable handle; using it with another store panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub(super) store: StoreId,
    pub(super) index: u32,
}

impl Memory {
    /// Makes a memory that belongs to no module.
    ///
    /// # Errors
    /// When the store's limits or the system do not allow it.
    pub fn new(store: &mut impl AsStore, ty: MemoryType) -> Result<Memory, MemoryError> {
        let inner = get_mut(store);
        let mut memory = LinearMemory::new(ty, Placement::Anywhere, inner.config.max_memory_bytes)?;
        memory.attach_own();
        Ok(inner.add_memory(memory))
    }

    /// Its type, with the current size as the minimum.
    #[must_use]
    pub fn ty(self, store: &impl AsStore) -> MemoryType {
        get(store).memory(self).current_type()
    }

    /// Its bytes.
    #[must_use]
    pub fn data(self, store: &impl AsStore) -> &[u8] {
        get(store).memory(self).bytes()
    }

    /// Its bytes, to change.
    #[must_use]
    pub fn data_mut(self, store: &mut impl AsStore) -> &mut [u8] {
        get_mut(store).memory_mut(self).bytes_mut()
    }

    /// Its size in pages.
    #[must_use]
    pub fn size(self, store: &impl AsStore) -> u64 {
        get(store).memory(self).pages()
    }

    /// Grows it by `delta` pages and returns the previous size in pages, or `None` when its type,
    /// the store's limits or the system forbid it.
    pub fn grow(self, store: &mut impl AsStore, delta: u64) -> Option<u64> {
        get_mut(store).memory_mut(self).grow(delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(min: u64, max: Option<u64>) -> MemoryType {
        MemoryType { memory64: false, shared: false, min, max, page_size_log2: 16 }
    }

    fn memory(min: u64, max: Option<u64>, limit: u64) -> LinearMemory {
        let mut memory = LinearMemory::new(ty(min, max), Placement::Anywhere, limit).unwrap();
        memory.attach_own();
        memory
    }

    #[test]
    fn growth_keeps_the_base_and_the_bytes_and_stops_at_each_limit() {
        let mut memory = memory(1, Some(4), 3 << 16);
        memory.bytes_mut()[65535] = 7;
        let base = memory.base();
        assert_eq!(memory.grow(0), Some(1));
        assert_eq!(memory.grow(2), Some(1));
        assert_eq!(memory.base(), base);
        assert_eq!((memory.bytes()[65535], memory.bytes()[65536]), (7, 0));
        assert_eq!(memory.bytes().len(), 3 << 16);
        // SAFETY: the definition is the memory's own.
        assert_eq!(unsafe { memory.def().as_ref() }.length, 3 << 16);
        assert_eq!(memory.grow(1), None, "over the limit in bytes");
        assert_eq!(memory.grow(u64::MAX), None);
        let mut typed = self::memory(1, Some(2), u64::MAX);
        assert_eq!((typed.grow(2), typed.grow(1), typed.grow(1)), (None, Some(1), None));
    }

    #[test]
    fn all_four_gibibytes_can_be_reached_and_no_more() {
        let mut memory = memory(0, None, u64::MAX);
        assert_eq!(memory.grow(65536), Some(0));
        let last = memory.bytes().len() - 1;
        memory.bytes_mut()[last] = 1;
        assert_eq!(last, u32::MAX as usize);
        assert_eq!(memory.grow(1), None);
    }

    #[test]
    fn guards_are_all_that_is_reserved_but_not_accessible() {
        let memory = memory(1, None, u64::MAX);
        let base = memory.base().addr();
        for inside in [base, base + 65535] {
            assert!(!memory.guards(inside));
        }
        let end = base + (MEMORY_RESERVATION + MEMORY_GUARD) as usize;
        for outside in [base - GUARD_BEFORE, base - 1, base + 65536, end - 1] {
            assert!(memory.guards(outside), "{outside:x}");
        }
        assert!(!memory.guards(base - GUARD_BEFORE - 1));
        assert!(!memory.guards(end));
        assert!(!memory.guards(0));
    }

    #[test]
    fn the_fixed_address_is_given_out_once_at_a_time() {
        let first = LinearMemory::new(ty(1, None), Placement::Dedicated, u64::MAX).unwrap();
        assert_eq!(first.base().addr() as u64, DEDICATED_BASE);
        let second = LinearMemory::new(ty(1, None), Placement::Dedicated, u64::MAX);
        assert!(matches!(second, Err(MemoryError::SecondDedicated)));
        drop(first);
        LinearMemory::new(ty(1, None), Placement::Dedicated, u64::MAX).unwrap();
    }

    #[test]
    fn too_large_a_minimum_is_an_error() {
        let error = LinearMemory::new(ty(2, None), Placement::Anywhere, 65536).unwrap_err();
        assert!(matches!(error, MemoryError::Limit { pages: 2, limit: 65536 }));
        assert!(LinearMemory::new(ty(u64::MAX, None), Placement::Anywhere, u64::MAX).is_err());
    }

    #[test]
    fn images_are_private_copies_of_the_file() {
        let file = crate::runtime::sys::anonymous_file(&[5; 8192]).unwrap();
        let mut first = memory(1, None, u64::MAX);
        let mut second = memory(1, None, u64::MAX);
        for memory in [&mut first, &mut second] {
            memory.map_image(4096..8192, &file, 4096).unwrap();
        }
        first.bytes_mut()[5000] = 9;
        assert_eq!((first.bytes()[5000], second.bytes()[5000]), (9, 5));
        assert_eq!((second.bytes()[4095], second.bytes()[8192]), (0, 0));
    }
}
