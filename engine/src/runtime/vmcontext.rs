//! What compiled code reads and writes, as real structs, and the context block of an instance.
//!
//! The numbers in [`abi::layout`](crate::abi::layout) are the treaty; the tests at the end compare
//! each struct with them.

use std::alloc::{self, Layout as Block};
use std::ptr::NonNull;
use std::sync::Arc;

use super::registry::TypeId;
use super::shared::SharedMemory;
use super::supertypes::Row;
use crate::abi::layout::{self, Layout};

/// A value slot of trampolines: little endian, zero-extended.
pub(super) type Slot = [u8; 16];

/// A linear memory's definition; see [`layout::memory_def`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct MemoryDef {
    pub(super) base: *mut u8,
    pub(super) length: usize,
}

/// A table's definition; see [`layout::table_def`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct TableDef {
    pub(super) base: *mut u8,
    pub(super) length: u64,
}

/// A global's value.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
pub(super) struct GlobalCell(pub(super) Slot);

/// What a call of an imported function needs; see [`layout::func_import`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct FuncImport {
    pub(super) code: *const u8,
    pub(super) ctx: *mut u8,
}

/// What a non-null function reference points to; see [`layout::func_ref`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct FuncRef {
    pub(super) code: *const u8,
    pub(super) ctx: *mut u8,
    pub(super) type_id: TypeId,
}

/// The fixed head of a context.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: u32,
    pub(super) stack_limit: usize,
    pub(super) store: *mut StoreRecord,
    pub(super) builtins: *const *const u8,
    pub(super) instance: *mut u8,
    pub(super) gc_heap: *mut u8,
    pub(super) supertypes: *const Row,
    pub(super) lazy: *const u8,
}

/// Where the innermost entry into compiled code came from.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Activation {
    pub(super) entry_sp: usize,
    pub(super) entry_fp: usize,
    pub(super) entry_handler: usize,
    pub(super) last_exit_fp: usize,
    /// The activation that this one is nested in, on the stack of [`call`](super::call).
    pub(super) outer: *const Activation,
}

impl Activation {
    pub(super) const NONE: Activation = Activation {
        entry_sp: 0,
        entry_fp: 0,
        entry_handler: 0,
        last_exit_fp: 0,
        outer: std::ptr::null(),
    };
}

/// The part of a store that compiled code knows; see [`layout::store_record`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct StoreRecord {
    /// The innermost one.
    pub(super) activation: Activation,
    /// What exit trampolines call to raise an exception.
    pub(super) raise: *const u8,
}

/// A tag: compiled code and the runtime know it by the address of its record.
#[derive(Debug)]
pub(super) struct TagRecord {
    /// Its place in the store.
    pub(super) index: u32,
    /// The engine's number of its type.
    pub(super) type_id: TypeId,
    /// What its module exports it as.
    pub(super) name: Option<Arc<str>>,
}

/// The function behind a host record.
pub(super) type HostCall = unsafe extern "C" fn(record: *mut HostRecord, values: *mut Slot) -> u32;

/// What a host function's `ctx` points to; see [`layout::host_record`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct HostRecord {
    pub(super) call: HostCall,
    pub(super) store: *mut StoreRecord,
    /// The closure, of the type that `call` was made for.
    pub(super) closure: *const (),
    /// The importing instance's memory.
    pub(super) memory: CallersMemory,
}

/// The memory that a host function sees as its caller's.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallersMemory {
    None,
    Own(NonNull<MemoryDef>),
    Shared(NonNull<SharedMemory>),
}

/// A heap value at a fixed address, to which compiled code and raw pointers may refer.
///
/// Unlike a `Box` it makes no claim to be the only pointer when it is moved.
#[derive(Debug)]
pub(super) struct Stable<T: ?Sized>(NonNull<T>);

impl<T: ?Sized> Stable<T> {
    pub(super) fn new(value: Box<T>) -> Stable<T> {
        Stable(NonNull::from(Box::leak(value)))
    }

    /// The address.
    pub(super) fn pointer(&self) -> NonNull<T> {
        self.0
    }

    pub(super) fn get(&self) -> &T {
        // SAFETY: made from a box and freed only by `Drop`. Whoever else holds the pointer uses it
        // on this thread and not while a reference exists: the store is borrowed for its time.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        // SAFETY: as in `get`.
        unsafe { self.0.as_mut() }
    }
}

impl<T: ?Sized> Drop for Stable<T> {
    fn drop(&mut self) {
        // SAFETY: `new` leaked exactly this box.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The context block of an instance. It never moves and is freed with its owner.
#[derive(Debug)]
pub(super) struct Context {
    start: NonNull<u8>,
    layout: Layout,
}

impl Context {
    /// Allocates a zeroed block with its header filled in, except for the instance.
    pub(super) fn new(layout: Layout, header: Header) -> Context {
        let block = Context::block(&layout);
        // SAFETY: the block's size is at least the header's, so not 0.
        let start = unsafe { alloc::alloc_zeroed(block) };
        let Some(start) = NonNull::new(start) else { alloc::handle_alloc_error(block) };
        let context = Context { start, layout };
        // SAFETY: `header` is in bounds and aligned; nothing else refers to the new block.
        unsafe { context.header().write(header) };
        context
    }

    fn block(layout: &Layout) -> Block {
        match Block::from_size_align(layout.size() as usize, 16) {
            Ok(block) => block,
            Err(_) => unreachable!("a u32 size never overflows on a 64-bit machine"),
        }
    }

    /// The address that compiled code knows.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// A pointer to a field, checked to lie within the block and to be aligned.
    fn field<T>(&self, offset: u32) -> NonNull<T> {
        let end = offset as usize + size_of::<T>();
        assert!(
            end <= self.layout.size() as usize && (offset as usize).is_multiple_of(align_of::<T>())
        );
        // SAFETY: the block has `layout.size()` bytes and the field ends within (asserted).
        unsafe { self.start.add(offset as usize).cast() }
    }

    pub(super) fn header(&self) -> NonNull<Header> {
        self.field(0)
    }

    pub(super) fn defined_memory(&self, n: u32) -> NonNull<MemoryDef> {
        assert!(n < self.layout.shape().defined_memories);
        self.field(self.layout.defined_memory(n))
    }

    pub(super) fn imported_memory(&self, n: u32) -> NonNull<*mut MemoryDef> {
        assert!(n < self.layout.shape().imported_memories);
        self.field(self.layout.imported_memory(n))
    }

    pub(super) fn defined_table(&self, n: u32) -> NonNull<TableDef> {
        assert!(n < self.layout.shape().defined_tables);
        self.field(self.layout.defined_table(n))
    }

    pub(super) fn imported_table(&self, n: u32) -> NonNull<*mut TableDef> {
        assert!(n < self.layout.shape().imported_tables);
        self.field(self.layout.imported_table(n))
    }

    pub(super) fn defined_global(&self, n: u32) -> NonNull<GlobalCell> {
        assert!(n < self.layout.shape().defined_globals);
        self.field(self.layout.defined_global(n))
    }

    pub(super) fn imported_global(&self, n: u32) -> NonNull<*mut GlobalCell> {
        assert!(n < self.layout.shape().imported_globals);
        self.field(self.layout.imported_global(n))
    }

    pub(super) fn imported_func(&self, n: u32) -> NonNull<FuncImport> {
        assert!(n < self.layout.shape().imported_funcs);
        self.field(self.layout.imported_func(n))
    }

    pub(super) fn type_id(&self, n: u32) -> NonNull<TypeId> {
        assert!(n < self.layout.shape().types);
        self.field(self.layout.type_id(n))
    }

    pub(super) fn func_ref(&self, n: u32) -> NonNull<FuncRef> {
        assert!(n < self.layout.shape().escaped_funcs);
        self.field(self.layout.func_ref(n))
    }

    pub(super) fn tag(&self, n: u32) -> NonNull<*const TagRecord> {
        assert!(n < self.layout.shape().tags);
        self.field(self.layout.tag(n))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with the same size and alignment, freed once. The store drops
        // contexts last, when no compiled code runs any more.
        unsafe { alloc::dealloc(self.start.as_ptr(), Context::block(&self.layout)) };
    }
}

const _: () = assert!(layout::VALUE_SIZE as usize == size_of::<Slot>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::layout::{
        CTX_BUILTINS, CTX_GC_HEAP, CTX_HEADER_SIZE, CTX_INSTANCE, CTX_MAGIC, CTX_STACK_LIMIT,
        CTX_STORE, CTX_SUPERTYPES, GLOBAL_SIZE, Shape, func_import, func_ref, host_record,
        memory_def, store_record, table_def,
    };
    use std::mem::offset_of;

    fn same(struct_offset: usize, treaty: u32) {
        assert_eq!(struct_offset, treaty as usize);
    }

    #[test]
    fn structs_agree_with_the_treaty() {
        same(offset_of!(Header, magic), CTX_MAGIC);
        same(offset_of!(Header, stack_limit), CTX_STACK_LIMIT);
        same(offset_of!(Header, store), CTX_STORE);
        same(offset_of!(Header, builtins), CTX_BUILTINS);
        same(offset_of!(Header, instance), CTX_INSTANCE);
        same(offset_of!(Header, gc_heap), CTX_GC_HEAP);
        same(offset_of!(Header, supertypes), CTX_SUPERTYPES);
        same(offset_of!(Header, lazy), layout::CTX_LAZY);
        assert!(size_of::<Header>() <= CTX_HEADER_SIZE as usize);

        same(offset_of!(StoreRecord, activation), 0);
        same(offset_of!(Activation, entry_sp), store_record::ENTRY_SP);
        same(offset_of!(Activation, entry_fp), store_record::ENTRY_FP);
        same(offset_of!(Activation, entry_handler), store_record::ENTRY_HANDLER);
        same(offset_of!(Activation, last_exit_fp), store_record::LAST_EXIT_FP);
        same(offset_of!(Activation, outer), store_record::OUTER);
        same(offset_of!(StoreRecord, raise), store_record::RAISE);
        same(size_of::<StoreRecord>(), store_record::SIZE);

        same(offset_of!(HostRecord, call), host_record::CALL);
        same(offset_of!(HostRecord, store), host_record::STORE);
        same(offset_of!(HostRecord, closure), host_record::SIZE);

        same(offset_of!(MemoryDef, base), memory_def::BASE);
        same(offset_of!(MemoryDef, length), memory_def::LENGTH);
        same(size_of::<MemoryDef>(), memory_def::SIZE);
        same(offset_of!(TableDef, base), table_def::BASE);
        same(offset_of!(TableDef, length), table_def::LENGTH);
        same(size_of::<TableDef>(), table_def::SIZE);
        same(size_of::<GlobalCell>(), GLOBAL_SIZE);
        same(align_of::<GlobalCell>(), GLOBAL_SIZE);

        same(offset_of!(FuncImport, code), func_import::CODE);
        same(offset_of!(FuncImport, ctx), func_import::CTX);
        same(size_of::<FuncImport>(), func_import::SIZE);
        same(offset_of!(FuncRef, code), func_ref::CODE);
        same(offset_of!(FuncRef, ctx), func_ref::CTX);
        same(offset_of!(FuncRef, type_id), func_ref::TYPE_ID);
        same(size_of::<FuncRef>(), func_ref::SIZE);
    }

    #[test]
    fn every_field_of_a_context_is_aligned_and_within() {
        let shape = Shape {
            types: 3,
            imported_funcs: 3,
            imported_memories: 1,
            imported_tables: 1,
            imported_globals: 3,
            defined_memories: 1,
            defined_tables: 1,
            defined_globals: 3,
            escaped_funcs: 3,
            tags: 3,
        };
        let header = Header {
            magic: 7,
            stack_limit: 0,
            store: std::ptr::null_mut(),
            builtins: std::ptr::null(),
            instance: std::ptr::null_mut(),
            gc_heap: std::ptr::null_mut(),
            supertypes: std::ptr::null(),
            lazy: std::ptr::null(),
        };
        let context = Context::new(Layout::new(shape), header);
        // `field` asserts the bounds and the alignment.
        for n in 0..3 {
            context.type_id(n);
            context.imported_func(n);
            context.imported_global(n);
            context.defined_global(n);
            context.func_ref(n);
            context.tag(n);
        }
        context.defined_memory(0);
        context.imported_memory(0);
        context.defined_table(0);
        context.imported_table(0);
        // SAFETY: the header was written by `new`.
        assert_eq!(unsafe { context.header().as_ref() }.magic, 7);
    }

    #[test]
    #[should_panic]
    fn an_index_past_the_shape_is_refused() {
        let header = Header {
            magic: 0,
            stack_limit: 0,
            store: std::ptr::null_mut(),
            builtins: std::ptr::null(),
            instance: std::ptr::null_mut(),
            gc_heap: std::ptr::null_mut(),
            supertypes: std::ptr::null(),
            lazy: std::ptr::null(),
        };
        Context::new(Layout::new(Shape::default()), header).func_ref(0);
    }
}
