//! Linear memories: limits, growth, bulk operations; and the handle that embedders use.
//!
//! A memory lies in a [`Region`] of reserved address space. Growing makes more of it accessible. One
//! with 64-bit indices that outgrows its region moves to a larger one; compiled code loads the base
//! of such a memory anew for each access. What is shared between threads never moves and lies in a
//! [`SharedMemory`].

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use super::builtins::{slice_mut, usize_range};
use super::region::{Placement, Plan, Region};
use super::shared::SharedMemory;
use super::store::{AsStore, StoreId, get, get_mut};
use super::vmcontext::{CallersMemory, MemoryDef, Stable};
use crate::config::DEDICATED_BASE;
use crate::module::types::MemoryType;

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
    #[error("type of a shared memory must be shared and have a maximum")]
    NotShared,
}

/// Why bytes of a memory cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {offset:#x} are outside of the linear memory of {size} bytes")]
pub struct OutOfBounds {
    /// First byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// Bytes of the memory at that moment.
    pub size: u64,
}

/// How large a memory may be: its sizes in pages as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    page_size_log2: u8,
    /// Most bytes: the least of what the index type, the memory's type and the embedder allow.
    limit: u64,
}

impl Bounds {
    pub(super) fn new(ty: &MemoryType, limit: u64) -> Bounds {
        let log2 = ty.page_size_log2;
        // A size in pages must be a value of the index type, and every byte have an index.
        let by_index = match ty.memory64 {
            true => u64::MAX >> log2,
            false => ((1 << 32) >> log2).min(u64::from(u32::MAX)),
        };
        let pages = by_index.min(ty.max.unwrap_or(u64::MAX));
        // Slices of Rust end where signed addresses do.
        let limit = limit.min(pages << log2).min(isize::MAX as u64);
        Bounds { page_size_log2: log2, limit }
    }

    /// Most bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes of so many pages, if that is allowed.
    pub(super) fn bytes(&self, pages: u64) -> Option<usize> {
        let bytes = pages.checked_mul(1 << self.page_size_log2)?;
        (bytes <= self.limit).then_some(bytes as usize)
    }

    /// The bytes of the minimum size.
    pub(super) fn start(&self, ty: &MemoryType) -> Result<usize, MemoryError> {
        self.bytes(ty.min).ok_or(MemoryError::Limit { pages: ty.min, limit: self.limit })
    }

    /// Whole pages in so many bytes.
    pub(super) fn pages(&self, bytes: usize) -> u64 {
        (bytes as u64) >> self.page_size_log2
    }
}

/// A linear memory. Its definition, which compiled code reads, lies in the defining instance's
/// context or, for one that the host made, beside it.
#[derive(Debug)]
pub(super) struct LinearMemory {
    backing: Backing,
    ty: MemoryType,
    bounds: Bounds,
    def: NonNull<MemoryDef>,
    own_def: Option<Stable<MemoryDef>>,
}

/// Where the bytes are.
#[derive(Debug)]
enum Backing {
    /// In a region that this store alone uses, of which `length` bytes are accessible.
    Own { region: Region, length: usize },
    /// Where other stores and threads may use them, too.
    Shared(Stable<SharedMemory>),
}

impl LinearMemory {
    /// A memory of the type's minimum size, all zero. `limit` is the most bytes that it may have.
    pub(super) fn new(
        ty: MemoryType,
        placement: Placement,
        limit: u64,
    ) -> Result<LinearMemory, MemoryError> {
        if ty.shared {
            return Ok(LinearMemory::from_shared(SharedMemory::place(ty, placement, limit)?));
        }
        let bounds = Bounds::new(&ty, limit);
        let length = bounds.start(&ty)?;
        let region = Region::new(Plan::new(&ty, length, bounds.limit()), placement)?;
        let commit = |source| MemoryError::Commit { bytes: length, source };
        region.commit(0..length).map_err(commit)?;
        Ok(LinearMemory::over(Backing::Own { region, length }, ty, bounds))
    }

    /// The part of this store in a shared memory.
    pub(super) fn from_shared(shared: SharedMemory) -> LinearMemory {
        let (ty, bounds) = (shared.declared_type(), shared.bounds());
        LinearMemory::over(Backing::Shared(Stable::new(Box::new(shared))), ty, bounds)
    }

    fn over(backing: Backing, ty: MemoryType, bounds: Bounds) -> LinearMemory {
        LinearMemory { backing, ty, bounds, def: NonNull::dangling(), own_def: None }
    }

    /// The memory that threads share, if it is one.
    pub(super) fn shared(&self) -> Option<&SharedMemory> {
        match &self.backing {
            Backing::Own { .. } => None,
            Backing::Shared(shared) => Some(shared.get()),
        }
    }

    fn region(&self) -> &Region {
        match &self.backing {
            Backing::Own { region, .. } => region,
            Backing::Shared(shared) => shared.get().region(),
        }
    }

    /// Where host functions find the memory, which lives as long as the store.
    pub(super) fn for_callers(&self) -> CallersMemory {
        match &self.backing {
            Backing::Own { .. } => CallersMemory::Own(self.def),
            Backing::Shared(shared) => CallersMemory::Shared(shared.pointer()),
        }
    }

    /// Address of byte 0.
    pub(super) fn base(&self) -> *mut u8 {
        self.region().base()
    }

    /// Accessible bytes.
    fn length(&self) -> usize {
        match &self.backing {
            Backing::Own { length, .. } => *length,
            Backing::Shared(shared) => shared.get().len(),
        }
    }

    /// Whether `len` bytes lie at an address.
    pub(super) fn has(&self, address: u64, len: u64) -> bool {
        address.checked_add(len).is_some_and(|end| end <= self.length() as u64)
    }

    /// Maps part of the initial contents from an image file: shared pages, copied when written. The
    /// memory must be new: nobody else knows it yet.
    pub(super) fn map_image(
        &mut self,
        guest: Range<u64>,
        file: &std::fs::File,
        offset: u64,
    ) -> Result<(), MemoryError> {
        assert!(guest.end <= self.length() as u64, "images lie within the initial size");
        let range = guest.start as usize..guest.end as usize;
        self.region().map_file(range, file, offset).map_err(MemoryError::Image)
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
        let length = match &self.backing {
            Backing::Own { length, .. } => *length,
            // Compiled code reads a length that other threads change through its address.
            Backing::Shared(shared) => shared.get().len_address(),
        };
        let def = MemoryDef { base: self.base(), length };
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
        self.bounds.pages(self.length())
    }

    /// Grows by `delta` pages; the previous size in pages, or `None` when a limit or the system
    /// forbids it.
    pub(super) fn grow(&mut self, delta: u64) -> Option<u64> {
        let (region, length) = match &mut self.backing {
            Backing::Own { region, length } => (region, length),
            Backing::Shared(shared) => return shared.get().grow(delta),
        };
        let old = self.bounds.pages(*length);
        let new_length = self.bounds.bytes(old.checked_add(delta)?)?;
        if new_length > region.capacity() {
            *region = region.grown(*length, new_length, self.bounds.limit())?;
        } else {
            region.commit(*length..new_length).ok()?;
        }
        *length = new_length;
        self.publish();
        Some(old)
    }

    /// The accessible bytes; none of a shared memory, to whose bytes no reference may exist.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.backing {
            // SAFETY: `length` bytes from the base are committed, and nobody writes to them while
            // the store, and with it this memory, is borrowed.
            Backing::Own { region, length } => unsafe {
                std::slice::from_raw_parts(region.base(), *length)
            },
            Backing::Shared(_) => &[],
        }
    }

    /// The accessible bytes; none of a shared memory, to whose bytes no reference may exist.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match &self.backing {
            // SAFETY: as in `bytes`; the borrow is exclusive.
            Backing::Own { region, length } => unsafe {
                std::slice::from_raw_parts_mut(region.base(), *length)
            },
            Backing::Shared(_) => &mut [],
        }
    }

    /// Copies bytes out; `None`, and nothing copied, when out of bounds.
    pub(super) fn read(&self, src: u64, out: &mut [u8]) -> Option<()> {
        match &self.backing {
            Backing::Own { .. } => {
                out.copy_from_slice(self.bytes().get(usize_range(src, out.len() as u64))?);
                Some(())
            }
            Backing::Shared(shared) => shared.get().read(src, out).ok(),
        }
    }

    /// Copies bytes in; `None`, and nothing copied, when out of bounds.
    pub(super) fn write(&mut self, dst: u64, bytes: &[u8]) -> Option<()> {
        match &self.backing {
            Backing::Own { .. } => {
                slice_mut(self.bytes_mut(), dst, bytes.len() as u64)?.copy_from_slice(bytes);
                Some(())
            }
            Backing::Shared(shared) => shared.get().write(dst, bytes).ok(),
        }
    }

    /// Writes one byte to all of `dst..dst + len`; `None`, and nothing written, when out of bounds.
    pub(super) fn fill(&mut self, dst: u64, value: u8, len: u64) -> Option<()> {
        match &self.backing {
            Backing::Own { .. } => {
                slice_mut(self.bytes_mut(), dst, len)?.fill(value);
                Some(())
            }
            Backing::Shared(shared) => shared.get().fill(dst, value, len).ok(),
        }
    }

    /// Moves bytes within the memory; `None`, and nothing moved, when out of bounds.
    pub(super) fn copy_within(&mut self, dst: u64, src: u64, len: u64) -> Option<()> {
        if let Some(shared) = self.shared() {
            return shared.copy_from(dst, shared, src, len).ok();
        }
        let bytes = self.bytes_mut();
        let (to, from) = (usize_range(dst, len), usize_range(src, len));
        if to.end > bytes.len() || from.end > bytes.len() {
            return None;
        }
        bytes.copy_within(from, to.start);
        Some(())
    }

    /// Copies bytes from another memory; `None`, and nothing copied, when out of bounds.
    pub(super) fn copy_from(
        &mut self,
        dst: u64,
        other: &LinearMemory,
        src: u64,
        len: u64,
    ) -> Option<()> {
        match (&self.backing, &other.backing) {
            // Two handles may stand for one memory: then the ranges may overlap.
            (Backing::Shared(to), Backing::Shared(from)) => {
                to.get().copy_from(dst, from.get(), src, len).ok()
            }
            (_, Backing::Own { .. }) => self.write(dst, other.bytes().get(usize_range(src, len))?),
            (Backing::Own { .. }, Backing::Shared(from)) => {
                from.get().read(src, slice_mut(self.bytes_mut(), dst, len)?).ok()
            }
        }
    }

    /// Whether an access that faulted at `address` hit the inaccessible part of this memory's
    /// reservation. Runs inside the signal handler.
    pub(super) fn guards(&self, address: usize) -> bool {
        let base = self.base().addr();
        let accessible = match &self.backing {
            Backing::Own { length, .. } => base..base + length,
            // What was out of bounds when the access faulted may be accessible by now.
            Backing::Shared(_) => base..base,
        };
        self.region().contains(address) && !accessible.contains(&address)
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

    /// Lets a store use a memory that is shared between threads. The same memory gives the same
    /// handle again.
    pub fn from_shared(store: &mut impl AsStore, shared: &SharedMemory) -> Memory {
        get_mut(store).memory_of_shared(shared)
    }

    /// The memory behind the handle, if it is shared between threads.
    #[must_use]
    pub fn shared(self, store: &impl AsStore) -> Option<SharedMemory> {
        get(store).memory(self).shared().cloned()
    }

    /// Its type, with the current size as the minimum.
    #[must_use]
    pub fn ty(self, store: &impl AsStore) -> MemoryType {
        get(store).memory(self).current_type()
    }

    /// Its bytes. Empty for a [shared](Memory::shared) memory, whose bytes other threads may write
    /// at any moment, so that no slice can stand for them: use [`Memory::read`].
    #[must_use]
    pub fn data(self, store: &impl AsStore) -> &[u8] {
        get(store).memory(self).bytes()
    }

    /// Its bytes, to change. Empty for a [shared](Memory::shared) memory: use [`Memory::write`].
    #[must_use]
    pub fn data_mut(self, store: &mut impl AsStore) -> &mut [u8] {
        get_mut(store).memory_mut(self).bytes_mut()
    }

    /// Copies the bytes from `offset` on to all of `out`.
    ///
    /// # Errors
    /// When they are not all inside; `out` is unchanged then.
    pub fn read(
        self,
        store: &impl AsStore,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), OutOfBounds> {
        let (memory, len) = (get(store).memory(self), out.len() as u64);
        memory.read(offset, out).ok_or(OutOfBounds { offset, len, size: memory.length() as u64 })
    }

    /// Copies all of `bytes` to the memory from `offset` on.
    ///
    /// # Errors
    /// When they do not fit; the memory is unchanged then.
    pub fn write(
        self,
        store: &mut impl AsStore,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), OutOfBounds> {
        let memory = get_mut(store).memory_mut(self);
        let (len, size) = (bytes.len() as u64, memory.length() as u64);
        memory.write(offset, bytes).ok_or(OutOfBounds { offset, len, size })
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
    use crate::config::{MEMORY_GUARD, MEMORY_RESERVATION};

    fn ty(min: u64, max: Option<u64>) -> MemoryType {
        MemoryType { memory64: false, shared: false, min, max, page_size_log2: 16 }
    }

    fn memory_of(ty: MemoryType, limit: u64) -> LinearMemory {
        let mut memory = LinearMemory::new(ty, Placement::Anywhere, limit).unwrap();
        memory.attach_own();
        memory
    }

    fn memory(min: u64, max: Option<u64>, limit: u64) -> LinearMemory {
        memory_of(ty(min, max), limit)
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
    fn a_size_in_single_bytes_is_a_value_of_the_index_type() {
        let ty = MemoryType { page_size_log2: 0, ..ty(3, None) };
        let mut memory = memory_of(ty, u64::MAX);
        assert_eq!(memory.bytes().len(), 3);
        assert_eq!(memory.grow(u64::from(u32::MAX) - 2), None);
        assert_eq!(memory.grow(4095), Some(3));
        assert_eq!(memory.bytes().len(), 4098);
        assert_eq!(memory.grow(u64::from(u32::MAX) - 4098), Some(4098));
        assert_eq!(memory.grow(1), None);
    }

    #[test]
    fn sixty_four_bits_reach_past_four_gibibytes() {
        let ty = MemoryType { memory64: true, ..ty(1, None) };
        let mut memory = memory_of(ty, 6 << 30);
        assert_eq!(memory.grow(u64::MAX), None);
        assert_eq!(memory.grow(1 << 48), None);
        assert_eq!(memory.grow(5 << 14), Some(1));
        memory.write(5 << 30, &[9]).unwrap();
        assert_eq!(memory.write((5 << 30) + 65535, &[1, 1]), None);
        assert_eq!(memory.bytes()[5 << 30], 9);
        assert_eq!(memory.grow(1 << 14), None, "over the limit in bytes");
    }

    #[test]
    fn a_memory_that_outgrows_its_reservation_moves_with_its_bytes() {
        let ty = MemoryType { memory64: true, ..ty(2, None) };
        let mut memory = memory_of(ty, 1 << 30);
        // As if the system had not given more.
        let region = Region::new(Plan::new(&ty, 2 << 16, 2 << 16), Placement::Anywhere).unwrap();
        region.commit(0..2 << 16).unwrap();
        memory.backing = Backing::Own { region, length: 2 << 16 };
        memory.write(0, b"first").unwrap();
        memory.write(131_067, b"last.").unwrap();
        let base = memory.base();
        assert_eq!(memory.grow(1), Some(2));
        assert_ne!(memory.base(), base);
        // SAFETY: the definition is the memory's own.
        let def = unsafe { memory.def().as_ref() };
        assert_eq!((def.base, def.length), (memory.base(), 3 << 16));
        assert_eq!(&memory.bytes()[..5], b"first");
        assert_eq!(&memory.bytes()[131_067..131_073], b"last.\0");
        let base = memory.base();
        assert_eq!(memory.grow(1), Some(3), "there is room for more now");
        assert_eq!(memory.base(), base);
        assert_eq!(memory.grow(1 << 14), None);
    }

    #[test]
    fn a_memory_at_the_fixed_address_grows_in_its_reservation_only() {
        let _alone = super::super::region::tests::fixed_address();
        let ty = MemoryType { memory64: true, ..ty(1, None) };
        let mut memory = LinearMemory::new(ty, Placement::Dedicated, 8 << 16).unwrap();
        memory.attach_own();
        assert_eq!(memory.base().addr() as u64, DEDICATED_BASE);
        assert_eq!(memory.grow(7), Some(1));
        memory.bounds = Bounds::new(&ty, u64::MAX);
        assert_eq!(memory.grow(1), None);
        assert_eq!(memory.pages(), 8);
    }

    #[test]
    fn guards_are_all_that_is_reserved_but_not_accessible() {
        let memory = memory(1, None, u64::MAX);
        let base = memory.base().addr();
        for inside in [base, base + 65535] {
            assert!(!memory.guards(inside));
        }
        let end = base + (MEMORY_RESERVATION + MEMORY_GUARD) as usize;
        for outside in [base - 1, base + 65536, base + (4 << 30), end - 1] {
            assert!(memory.guards(outside), "{outside:x}");
        }
        assert!(!memory.guards(end));
        assert!(!memory.guards(0));
    }

    #[test]
    fn too_large_a_minimum_is_an_error() {
        let error = LinearMemory::new(ty(2, None), Placement::Anywhere, 65536).unwrap_err();
        assert!(matches!(error, MemoryError::Limit { pages: 2, limit: 65536 }));
        assert!(LinearMemory::new(ty(u64::MAX, None), Placement::Anywhere, u64::MAX).is_err());
        let wide = MemoryType { memory64: true, ..ty(1 << 48, None) };
        assert!(LinearMemory::new(wide, Placement::Anywhere, u64::MAX).is_err());
    }

    #[test]
    fn bytes_pass_between_memories_of_every_kind() {
        let shared = MemoryType { shared: true, ..ty(1, Some(1)) };
        for (to, from) in [(ty(1, None), ty(1, None)), (shared, ty(1, None)), (ty(1, None), shared)]
            .into_iter()
            .chain([(shared, shared)])
        {
            let (mut to, mut from) = (memory_of(to, u64::MAX), memory_of(from, u64::MAX));
            from.fill(10, 7, 5).unwrap();
            to.copy_from(65533, &from, 12, 3).unwrap();
            assert_eq!(to.copy_from(65533, &from, 11, 4), None);
            assert_eq!(to.copy_from(0, &from, 65533, 4), None);
            let mut out = [0; 4];
            to.read(65532, &mut out).unwrap();
            assert_eq!(out, [0, 7, 7, 7]);
            to.copy_within(65531, 65532, 4).unwrap();
            to.read(65531, &mut out).unwrap();
            assert_eq!(out, [0, 7, 7, 7]);
        }
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
