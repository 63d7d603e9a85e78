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
use super::ceiling::MemoryLimits;
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
    /// A memory of the type's minimum size, all zero.
    pub(super) fn new(
        ty: MemoryType,
        placement: Placement,
        limits: MemoryLimits,
    ) -> Result<LinearMemory, MemoryError> {
        if ty.shared {
            return Ok(LinearMemory::from_shared(SharedMemory::place(ty, placement, limits)?));
        }
        let bounds = Bounds::new(&ty, limits.bytes);
        let length = bounds.start(&ty)?;
        let plan = Plan::new(&ty, length, bounds.limit());
        let region = Region::new(plan, placement, limits.ceiling)?;
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
            Backing::Shared(shared) => shared.get().byte_len(),
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

    /// The bytes that it has, and the most that it may have.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.length() as u64, self.bounds.limit())
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

/// A linear memory of a store: core specification, "Memory Instances". A copyable handle; using it
/// with another store panics.
///
/// Sizes are in pages of the memory's type, 64 KiB each if nothing else is said; offsets and lengths
/// of data are in bytes. Integers lie in little endian.
///
/// ```
/// use coracle_engine::runtime::{Engine, Memory, MemoryType, Store};
/// let mut store = Store::new(&Engine::new())?;
/// let memory = Memory::new(&mut store, MemoryType::new(1, Some(2)))?;
/// memory.write(&mut store, 16, &7u32.to_le_bytes())?;
/// let mut word = [0; 4];
/// memory.read(&store, 16, &mut word)?;
/// assert_eq!(u32::from_le_bytes(word), 7);
/// assert_eq!(memory.data(&store)[16..20], word, "the same without a copy");
/// assert_eq!(memory.grow(&mut store, 1), Some(1), "the size before");
/// assert_eq!((memory.size(&store), memory.byte_len(&store)), (2, 2 << 16));
/// assert_eq!(memory.grow(&mut store, 1), None, "over the maximum");
/// let outside = memory.read(&store, (2 << 16) - 3, &mut word).unwrap_err();
/// assert_eq!((outside.offset, outside.len, outside.size), ((2 << 16) - 3, 4, 2 << 16));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub(super) store: StoreId,
    pub(super) index: u32,
}

impl Memory {
    /// Makes a memory that belongs to no module, of the type's minimum size and all zero.
    ///
    /// # Errors
    /// When the store's limits or the system do not allow it.
    pub fn new(store: &mut impl AsStore, ty: MemoryType) -> Result<Memory, MemoryError> {
        let inner = get_mut(store);
        let mut memory = LinearMemory::new(ty, Placement::Anywhere, inner.config.memory_limits())?;
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

    /// Its size in bytes.
    #[must_use]
    pub fn byte_len(self, store: &impl AsStore) -> usize {
        get(store).memory(self).length()
    }

    /// Grows it by `delta` pages, which are zero, and returns the previous size in pages; `None`,
    /// and nothing changed, when its type, the store's limits or the system forbid it.
    pub fn grow(self, store: &mut impl AsStore, delta: u64) -> Option<u64> {
        get_mut(store).memory_mut(self).grow(delta)
    }
}

#[cfg(test)]
mod tests;
