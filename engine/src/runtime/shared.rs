//! Linear memories shared between threads.
//!
//! Every thread has a store of its own; what they share is this. It never moves, so that all of them
//! may keep its base, and its length only grows. Other threads may write to its bytes at any moment:
//! no Rust reference to them ever exists, and the host's copies go through [`racing`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ceiling::MemoryLimits;
use super::memory::{Bounds, MemoryError, OutOfBounds};
use super::region::{Placement, Plan, Region};
use super::sys::racing;
use super::waiters::{Waiters, Woken};
use crate::module::types::MemoryType;

/// A linear memory that stores on several threads may use at the same time. Cheap to clone: all
/// clones are the same memory. Threads proposal, "Shared Linear Memory".
///
/// Sizes are in pages of the memory's type, offsets in bytes.
///
/// [`Memory::from_shared`](super::Memory::from_shared) gives a store its handle.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings};
/// use coracle_engine::runtime::{Engine, Linker, Memory, MemoryType, Module, SharedMemory, Store};
/// let wat = r#"(module (import "env" "memory" (memory 1 1 shared))
///     (func (export "add") (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 21)))))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let ty = MemoryType { shared: true, ..MemoryType::new(1, Some(1)) };
/// let memory = SharedMemory::new(ty, 1 << 16)?;
/// std::thread::scope(|scope| {
///     for _ in 0..2 {
///         scope.spawn(|| {
///             let mut store = Store::new(&engine).unwrap();
///             let mut linker = Linker::new(&engine);
///             linker.define("env", "memory", Memory::from_shared(&mut store, &memory));
///             let instance = linker.instantiate(&mut store, &module).unwrap();
///             let add = instance.func(&store, "add").unwrap();
///             add.invoke(&mut store, &[]).unwrap();
///         });
///     }
/// });
/// let mut sum = [0];
/// memory.read(0, &mut sum)?;
/// assert_eq!(sum, [42]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SharedMemory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    region: Region,
    /// Accessible bytes. Written under `growing`.
    length: AtomicUsize,
    growing: Mutex<()>,
    ty: MemoryType,
    bounds: Bounds,
    waiters: Waiters,
}

impl SharedMemory {
    /// A memory of the type's minimum size, all zero, within limits: a number of bytes, or
    /// [`MemoryLimits`].
    ///
    /// # Errors
    /// When the type is not shared or has no maximum, its minimum is over the limit, or the system
    /// does not give the address space.
    pub fn new(
        ty: MemoryType,
        limits: impl Into<MemoryLimits>,
    ) -> Result<SharedMemory, MemoryError> {
        SharedMemory::place(ty, Placement::Anywhere, limits.into())
    }

    /// A memory at the fixed address of [`Addressing::Dedicated`](crate::config::Addressing): what
    /// modules compiled for it import as their memory 0. One at a time in a process.
    ///
    /// # Errors
    /// As [`SharedMemory::new`]; when the fixed address is taken.
    pub fn dedicated(
        ty: MemoryType,
        limits: impl Into<MemoryLimits>,
    ) -> Result<SharedMemory, MemoryError> {
        SharedMemory::place(ty, Placement::Dedicated, limits.into())
    }

    pub(super) fn place(
        ty: MemoryType,
        placement: Placement,
        limits: MemoryLimits,
    ) -> Result<SharedMemory, MemoryError> {
        if !ty.shared || ty.max.is_none() {
            return Err(MemoryError::NotShared);
        }
        let bounds = Bounds::new(&ty, limits.bytes);
        let length = bounds.start(&ty)?;
        let plan = Plan::new(&ty, length, bounds.limit());
        let region = Region::new(plan, placement, limits.ceiling)?;
        let commit = |source| MemoryError::Commit { bytes: length, source };
        region.commit(0..length).map_err(commit)?;
        let (length, growing, waiters) =
            (AtomicUsize::new(length), Mutex::default(), Waiters::default());
        Ok(SharedMemory { inner: Arc::new(Inner { region, length, growing, ty, bounds, waiters }) })
    }

    /// Its type, with the current size as the minimum.
    #[must_use]
    pub fn ty(&self) -> MemoryType {
        MemoryType { min: self.size(), ..self.inner.ty }
    }

    /// Its size in pages. Other threads may grow it at any moment.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inner.bounds.pages(self.byte_len())
    }

    /// Grows it by `delta` pages and returns the previous size in pages, or `None` when its type,
    /// its limit, its reservation or the system forbid it. Every thread sees it at once.
    pub fn grow(&self, delta: u64) -> Option<u64> {
        let inner = &*self.inner;
        let _growing = inner.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let old_length = self.byte_len();
        let old = inner.bounds.pages(old_length);
        let length = inner.bounds.bytes(old.checked_add(delta)?)?;
        if length > inner.region.capacity() {
            return None;
        }
        inner.region.commit(old_length..length).ok()?;
        inner.length.store(length, Ordering::SeqCst);
        Some(old)
    }

    /// Copies the bytes from `offset` on to all of `out`. What other threads write meanwhile may be
    /// seen in part.
    ///
    /// # Errors
    /// When they are not all inside; `out` is unchanged then.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.range(offset, out.len() as u64)?;
        // SAFETY: as many bytes as `out` has lie there (checked), which stay accessible for good;
        // `out` is a reference, hence no part of a shared memory.
        unsafe { racing::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies all of `bytes` to the memory from `offset` on.
    ///
    /// # Errors
    /// When they do not fit; the memory is unchanged then.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.range(offset, bytes.len() as u64)?;
        // SAFETY: as in `read`, the other way round.
        unsafe { racing::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Writes one byte to all of `offset..offset + len`.
    ///
    /// # Errors
    /// When they are not all inside; the memory is unchanged then.
    pub fn fill(&self, offset: u64, value: u8, len: u64) -> Result<(), OutOfBounds> {
        let to = self.range(offset, len)?;
        // SAFETY: `len` bytes lie there (checked), which stay accessible for good.
        unsafe { racing::fill(to, value, len as usize) };
        Ok(())
    }

    /// Copies bytes from another shared memory or within this one; the ranges may overlap.
    pub(super) fn copy_from(
        &self,
        dst: u64,
        other: &SharedMemory,
        src: u64,
        len: u64,
    ) -> Result<(), OutOfBounds> {
        let (to, from) = (self.range(dst, len)?, other.range(src, len)?);
        // SAFETY: `len` bytes lie at both places (checked), which stay accessible for good.
        unsafe { racing::copy(from, to, len as usize) };
        Ok(())
    }

    /// Waits at `address` while it holds the four bytes of `expected`, until woken or for `timeout`
    /// at most. `None`: out of bounds. The address must be aligned.
    pub(super) fn wait32(
        &self,
        address: u64,
        expected: u32,
        timeout: Option<Duration>,
    ) -> Option<Woken> {
        let word = self.range(address, 4).ok()?.cast::<u32>();
        // SAFETY: four bytes lie there (checked), aligned as the caller says, accessible for good.
        let holds = || unsafe { racing::load32(word) } == expected;
        Some(self.inner.waiters.wait(address, holds, timeout))
    }

    /// [`SharedMemory::wait32`] for eight bytes.
    pub(super) fn wait64(
        &self,
        address: u64,
        expected: u64,
        timeout: Option<Duration>,
    ) -> Option<Woken> {
        let word = self.range(address, 8).ok()?.cast::<u64>();
        // SAFETY: eight bytes lie there (checked), aligned as the caller says, accessible for good.
        let holds = || unsafe { racing::load64(word) } == expected;
        Some(self.inner.waiters.wait(address, holds, timeout))
    }

    /// Wakes up to `count` of the threads that wait at an address, and says how many: what
    /// `memory.atomic.notify` does. Nobody waits at an address outside of the memory.
    pub fn notify(&self, address: u64, count: u32) -> u32 {
        self.inner.waiters.notify(address, count)
    }

    /// The type as it was declared.
    pub(super) fn declared_type(&self) -> MemoryType {
        self.inner.ty
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.inner.bounds
    }

    pub(super) fn region(&self) -> &Region {
        &self.inner.region
    }

    /// Whether both are the same memory.
    pub(super) fn is(&self, other: &SharedMemory) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Its size in bytes. Other threads may grow it at any moment; it never gets smaller.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.inner.length.load(Ordering::SeqCst)
    }

    /// The address at which compiled code reads the length.
    pub(super) fn len_address(&self) -> usize {
        self.inner.length.as_ptr().expose_provenance()
    }

    /// The address of a range that is inside.
    fn range(&self, offset: u64, len: u64) -> Result<*mut u8, OutOfBounds> {
        let size = self.byte_len() as u64;
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(self.region().base().wrapping_add(offset as usize)),
            _ => Err(OutOfBounds { offset, len, size }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(min: u64, max: u64, memory64: bool) -> SharedMemory {
        let ty = MemoryType { memory64, shared: true, min, max: Some(max), page_size_log2: 16 };
        SharedMemory::new(ty, u64::MAX).unwrap()
    }

    #[test]
    fn every_thread_grows_it_once_for_all() {
        for memory64 in [false, true] {
            let memory = shared(1, 100, memory64);
            let seen = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while let Some(old) = memory.grow(1) {
                            let last = memory.byte_len() as u64 - 1;
                            memory.write(last, &[1]).unwrap();
                            seen.lock().unwrap().push(old);
                        }
                    });
                }
            });
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, (1..100).collect::<Vec<_>>());
            assert_eq!(memory.size(), 100);
        }
    }

    #[test]
    fn bytes_outside_are_refused() {
        let memory = shared(1, 1, false);
        let mut out = [7; 4];
        let expected = OutOfBounds { offset: 65533, len: 4, size: 65536 };
        assert_eq!(memory.read(65533, &mut out), Err(expected));
        assert_eq!(out, [7; 4]);
        assert!(memory.write(u64::MAX, &[1, 2]).is_err());
        assert!(memory.fill(1, 1, u64::MAX).is_err());
        assert!(memory.fill(65536, 1, 0).is_ok());
        assert!(memory.copy_from(65530, &memory, 0, 7).is_err());
        assert!(memory.wait32(65536, 0, None).is_none());
        assert!(memory.wait64(65532, 0, None).is_none());
    }

    #[test]
    fn copies_may_overlap_in_both_directions() {
        const LEN: usize = 40_000;
        let pattern: Vec<u8> = (0..LEN).map(|n| (n * 7 / 3) as u8).collect();
        for (src, dst) in [(0u64, 1u64), (1, 0), (0, 5000), (5000, 0), (3, 3), (0, 20_000)] {
            let memory = shared(1, 1, false);
            memory.write(src, &pattern).unwrap();
            memory.copy_from(dst, &memory, src, LEN as u64).unwrap();
            let mut out = vec![0; LEN];
            memory.read(dst, &mut out).unwrap();
            assert!(out == pattern, "from {src} to {dst}");
        }
    }

    #[test]
    fn only_shared_types_with_a_maximum_are_taken() {
        let ty =
            MemoryType { memory64: false, shared: true, min: 1, max: None, page_size_log2: 16 };
        assert!(matches!(SharedMemory::new(ty, u64::MAX), Err(MemoryError::NotShared)));
        let ty = MemoryType { shared: false, max: Some(1), ..ty };
        assert!(matches!(SharedMemory::new(ty, u64::MAX), Err(MemoryError::NotShared)));
    }
}
