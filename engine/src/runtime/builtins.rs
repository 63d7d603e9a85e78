//! The bodies of the runtime calls in [`abi::builtins`](crate::abi::builtins).
//!
//! Each bounds check comes before any write. None panics on what a guest passes; a panic for any
//! other reason aborts the process at the `extern "C"` boundary.

use std::ptr;

use super::exception::RawException;
use super::gc::builtins::*;
use super::instance::InstanceInner;
use super::registry::TypeId;
use super::store::StoreInner;
use super::sys::throw;
use super::threads;
use super::trap::Pending;
use super::vmcontext::Header;
use crate::abi::builtins::Builtin;
use crate::abi::trap::TrapKind;
use crate::module::index::{DataIndex, ElemIndex, MemoryIndex, TableIndex, TagIndex};

/// The first parameter of every runtime call.
pub(super) type Ctx = *mut Header;

/// A pointer table that can stand in a constant.
pub(super) struct PointerTable([*const u8; Builtin::ALL.len()]);

// SAFETY: the pointers are addresses of functions, immutable and valid in every thread.
unsafe impl Sync for PointerTable {}

impl PointerTable {
    /// What contexts hold.
    pub(super) fn as_ptr(&'static self) -> *const *const u8 {
        self.0.as_ptr()
    }
}

macro_rules! rust_type {
    (i32) => {
        u32
    };
    (i64) => {
        u64
    };
}

macro_rules! make_table {
    ($($(#[$doc:meta])* $name:ident($($param:ident: $ty:ident),*) -> $result:ident;)*) => {
        /// The addresses of all runtime calls in the treaty's order, each checked against its
        /// signature there.
        pub(super) static TABLE: PointerTable = PointerTable([$({
            const FUNCTION: unsafe extern "C" fn(Ctx, $(rust_type!($ty)),*) -> rust_type!($result) =
                $name;
            FUNCTION as *const u8
        }),*]);
    };
}

crate::for_each_builtin!(make_table);

/// The instance and the store behind a context.
///
/// # Safety
/// `ctx` must be the context of a live instance of which no Rust reference is alive, nor of its
/// store, and the results must not outlive the runtime call.
unsafe fn parts<'a>(ctx: Ctx) -> (&'a mut InstanceInner, &'a mut StoreInner) {
    // SAFETY: the caller's promise. Instance and store are separate allocations.
    unsafe {
        let header = &*ctx;
        (&mut *header.instance.cast(), &mut *header.store.cast())
    }
}

/// The same for runtime calls that may collect garbage, which reads all instances.
///
/// # Safety
/// As for [`parts`], except that shared references to the instance may be alive.
pub(super) unsafe fn shared_parts<'a>(ctx: Ctx) -> (&'a InstanceInner, &'a mut StoreInner) {
    // SAFETY: the caller's promise. Instance and store are separate allocations.
    unsafe {
        let header = &*ctx;
        (&*header.instance.cast(), &mut *header.store.cast())
    }
}

/// The status for a bounds check's outcome; a failure is left with the store.
fn status(store: &mut StoreInner, outcome: Option<()>, kind: TrapKind) -> u32 {
    match outcome {
        Some(()) => 0,
        None => {
            store.pending = Some(Pending::Trap(kind));
            1
        }
    }
}

// SAFETY of all functions below: compiled code passes its own context, and while it waits for the
// runtime call nothing else uses the instance or the store; that is what `parts` asks for. Indices
// come from validated code, as the compiler wrote them.

unsafe extern "C" fn memory_grow(ctx: Ctx, memory: u32, delta: u64) -> u64 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let memory = instance.memory(MemoryIndex::from_u32(memory));
    store.memory_mut(memory).grow(delta).unwrap_or(u64::MAX)
}

unsafe extern "C" fn memory_copy(
    ctx: Ctx,
    dst_memory: u32,
    dst: u64,
    src_memory: u32,
    src: u64,
    len: u64,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let to = instance.memory(MemoryIndex::from_u32(dst_memory));
    let from = instance.memory(MemoryIndex::from_u32(src_memory));
    let outcome = store.copy_memory((to, dst), (from, src), len);
    status(store, outcome, TrapKind::MemoryOutOfBounds)
}

unsafe extern "C" fn memory_fill(ctx: Ctx, memory: u32, dst: u64, value: u32, len: u64) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let memory = instance.memory(MemoryIndex::from_u32(memory));
    let outcome = store.memory_mut(memory).fill(dst, value as u8, len);
    status(store, outcome, TrapKind::MemoryOutOfBounds)
}

unsafe extern "C" fn memory_init(
    ctx: Ctx,
    memory: u32,
    data: u32,
    dst: u64,
    src: u32,
    len: u32,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let memory = instance.memory(MemoryIndex::from_u32(memory));
    let outcome = instance
        .data(DataIndex::from_u32(data))
        .get(usize_range(u64::from(src), u64::from(len)))
        .and_then(|source| store.memory_mut(memory).write(dst, source));
    status(store, outcome, TrapKind::MemoryOutOfBounds)
}

unsafe extern "C" fn data_drop(ctx: Ctx, data: u32) -> u32 {
    // SAFETY: see above.
    let (instance, _) = unsafe { parts(ctx) };
    instance.drop_data(DataIndex::from_u32(data));
    0
}

unsafe extern "C" fn table_grow(ctx: Ctx, table: u32, init: u64, delta: u64) -> u64 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let table = instance.table(TableIndex::from_u32(table));
    store.table_mut(table).grow(delta, init).unwrap_or(u64::MAX)
}

unsafe extern "C" fn table_fill(ctx: Ctx, table: u32, dst: u64, value: u64, len: u64) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let table = instance.table(TableIndex::from_u32(table));
    let outcome = store.table_mut(table).fill(dst, value, len);
    status(store, outcome, TrapKind::TableOutOfBounds)
}

unsafe extern "C" fn table_copy(
    ctx: Ctx,
    dst_table: u32,
    dst: u64,
    src_table: u32,
    src: u64,
    len: u64,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let to = instance.table(TableIndex::from_u32(dst_table));
    let from = instance.table(TableIndex::from_u32(src_table));
    let outcome = store.copy_table((to, dst), (from, src), len);
    status(store, outcome, TrapKind::TableOutOfBounds)
}

unsafe extern "C" fn table_init(
    ctx: Ctx,
    table: u32,
    elem: u32,
    dst: u64,
    src: u32,
    len: u32,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let table = instance.table(TableIndex::from_u32(table));
    let outcome = instance
        .elements(ElemIndex::from_u32(elem), src, len)
        .and_then(|values| store.table_mut(table).write(dst, values));
    status(store, outcome, TrapKind::TableOutOfBounds)
}

unsafe extern "C" fn elem_drop(ctx: Ctx, elem: u32) -> u32 {
    // SAFETY: see above.
    let (instance, _) = unsafe { parts(ctx) };
    instance.drop_elem(ElemIndex::from_u32(elem));
    0
}

unsafe extern "C" fn is_subtype(ctx: Ctx, ty: u32, of: u32) -> u32 {
    // SAFETY: see above.
    let (_, store) = unsafe { parts(ctx) };
    let (ty, of) = (TypeId::from_number(ty), TypeId::from_number(of));
    u32::from(store.engine.types().is_subtype(ty, of))
}

unsafe extern "C" fn memory_notify(
    ctx: Ctx,
    memory: u32,
    index: u64,
    offset: u64,
    count: u32,
) -> u64 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let memory = store.memory(instance.memory(MemoryIndex::from_u32(memory)));
    let outcome = threads::notify(memory, index, offset, count);
    result(store, outcome)
}

unsafe extern "C" fn memory_wait32(
    ctx: Ctx,
    memory: u32,
    index: u64,
    offset: u64,
    expected: u32,
    timeout: u64,
) -> u64 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let memory = store.memory(instance.memory(MemoryIndex::from_u32(memory)));
    let outcome = threads::wait32(memory, index, offset, expected, timeout as i64);
    result(store, outcome.map(|woken| woken as u32))
}

unsafe extern "C" fn memory_wait64(
    ctx: Ctx,
    memory: u32,
    index: u64,
    offset: u64,
    expected: u64,
    timeout: u64,
) -> u64 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let memory = store.memory(instance.memory(MemoryIndex::from_u32(memory)));
    let outcome = threads::wait64(memory, index, offset, expected, timeout as i64);
    result(store, outcome.map(|woken| woken as u32))
}

/// A result of 32 bits, or -1 with a trap left with the store.
fn result(store: &mut StoreInner, outcome: Result<u32, TrapKind>) -> u64 {
    outcome.map(u64::from).unwrap_or_else(|kind| {
        store.pending = Some(Pending::Trap(kind));
        u64::MAX
    })
}

unsafe extern "C" fn exception_new(ctx: Ctx, tag: u32) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { parts(ctx) };
    let tag = instance.tag(TagIndex::from_u32(tag));
    // SAFETY: the tag is one of this store's.
    match unsafe { RawException::allocate(store, tag) } {
        Some(exception) => exception.bits(),
        None => {
            store.pending = Some(Pending::Trap(TrapKind::OutOfMemory));
            0
        }
    }
}

/// The range of `len` from `start`; one that no slice has when its end overflows.
pub(super) fn usize_range(start: u64, len: u64) -> std::ops::Range<usize> {
    start as usize..start.saturating_add(len) as usize
}

/// `len` bytes from `start`, or `None` when out of bounds.
pub(super) fn slice_mut(bytes: &mut [u8], start: u64, len: u64) -> Option<&mut [u8]> {
    bytes.get_mut(usize_range(start, len))
}

unsafe extern "C" fn memory_move(_: Ctx, dst: u64, src: u64, len: u64) -> u32 {
    let dst = ptr::with_exposed_provenance_mut::<u8>(dst as usize);
    let src = ptr::with_exposed_provenance::<u8>(src as usize);
    // SAFETY: compiled code compared both ranges with the lengths of their memories, whose bytes
    // are mapped up to there; nothing else uses an unshared memory while its instance runs.
    unsafe { dst.copy_from(src, len as usize) };
    0
}

unsafe extern "C" fn memory_set(_: Ctx, dst: u64, value: u32, len: u64) -> u32 {
    let dst = ptr::with_exposed_provenance_mut::<u8>(dst as usize);
    // SAFETY: as above.
    unsafe { dst.write_bytes(value as u8, len as usize) };
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overflow_are_out_of_bounds() {
        let mut bytes = [0; 4];
        assert!(slice_mut(&mut bytes, 4, 0).is_some());
        assert!(slice_mut(&mut bytes, 5, 0).is_none());
        assert!(slice_mut(&mut bytes, u64::MAX, 2).is_none());
        assert!(slice_mut(&mut bytes, 1, u64::MAX).is_none());
    }

    #[test]
    fn the_table_has_a_function_in_every_place() {
        assert!(TABLE.0.iter().all(|pointer| !pointer.is_null()));
    }
}
