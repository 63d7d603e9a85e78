//! `Store`: everything that lives together: instances, memories, tables, globals, host functions.
//!
//! # How the unsafe parts share it
//!
//! Compiled code, its runtime calls and host functions reach the store by a raw pointer while
//! [`call`](super::call) waits on the stack for compiled code to come back. So that this is sound,
//! no Rust reference to [`StoreInner`] is ever alive when compiled code is entered: `call` works on
//! the raw pointer, and everything else borrows briefly through [`get`] and [`get_mut`]. A
//! [`Caller`](super::Caller) stands for the exclusive borrow that the waiting call holds.

mod codes;
mod config;

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::code::Module;
use super::engine::Engine;
use super::exception::{Held, RawException};
use super::gc::{Gc, Marker};
use super::host::HostFunc;
use super::instance::InstanceInner;
use super::memory::{LinearMemory, Memory};
use super::registry::TypeId;
use super::shared::SharedMemory;
use super::supertypes::{Row, Supertypes};
use super::sys;
use super::table::{Table, TableInner};
use super::throw::Resume;
use super::trap::{self, Pending, RawTrap};
use super::types::FuncType;
use super::vmcontext::{
    Activation, CallersMemory, FuncRef, GlobalCell, HostRecord, Stable, StoreRecord, TagRecord,
};
pub(super) use codes::CodeList;
pub use config::{StoreConfig, StoreError};

/// The unit of isolation: instances and all that they share, used by one thread. Core
/// specification, "Store".
///
/// Everything in it lives as long as it does: handles ([`Func`](super::Func),
/// [`Memory`], …) are numbers without a life of their own. Who runs many short-lived
/// instances gives each a store.
///
/// ```
/// use coracle_engine::runtime::{Engine, Memory, MemoryType, Store, StoreConfig};
/// let engine = Engine::new();
/// let config = StoreConfig { max_memory_bytes: 16 << 20, ..StoreConfig::default() };
/// let mut store = Store::with_config(&engine, config)?;
/// assert_eq!(store.config().max_memory_bytes, 16 << 20);
/// assert!(Memory::new(&mut store, MemoryType::new(257, None)).is_err(), "17 MiB of 16");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It is neither `Send` nor `Sync`: contexts hold the stack limit of the thread that made the
/// store, and fault handling finds the store through that thread.
///
/// ```compile_fail
/// fn send(store: coracle_engine::runtime::Store) {
///     std::thread::spawn(move || drop(store));
/// }
/// ```
#[derive(Debug)]
pub struct Store {
    inner: NonNull<StoreInner>,
    owns: PhantomData<StoreInner>,
}

/// Identifies a store within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreId(u64);

#[derive(Debug)]
#[repr(C)]
pub(super) struct StoreInner {
    /// First, so that a pointer to it is a pointer to the store.
    pub(super) record: StoreRecord,
    /// The store's own address, from which contexts and host records get theirs.
    this: *mut StoreInner,
    pub(super) id: StoreId,
    pub(super) engine: Engine,
    pub(super) config: StoreConfig,
    /// Lowest stack address that the host leaves to guests on this thread.
    stack_floor: usize,
    /// What the contexts hold as their stack limit.
    pub(super) stack_limit: usize,
    pub(super) codes: CodeList,
    pub(super) instances: Vec<Stable<InstanceInner>>,
    memories: Vec<LinearMemory>,
    tables: Vec<TableInner>,
    globals: Vec<Stable<GlobalCell>>,
    host_funcs: Vec<Stable<HostEntry>>,
    tags: Vec<Stable<TagRecord>>,
    /// Exceptions that the host holds.
    held: Held,
    pub(super) gc: Gc,
    /// Used from the first instance on whose code may ask for it.
    supertypes: Option<Supertypes>,
    /// By the engine's type number.
    signatures: Vec<Option<Signature>>,
    /// Why the last runtime call or host function failed.
    pub(super) pending: Option<Pending>,
    /// What the fault handler saw last.
    pub(super) trap: RawTrap,
    /// Where a throw goes on.
    pub(super) resume: Resume,
}

/// How to get in and out of functions of a type; addresses in the text of a module of this store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature {
    pub(super) entry: *const u8,
    pub(super) exit: *const u8,
}

/// A function that the host made for this store.
#[derive(Debug)]
pub(super) struct HostEntry {
    record: HostRecord,
    func: FuncRef,
    _closure: Rc<HostFunc>,
}

/// Bytes of stack that stay with the host: for host functions, runtime calls and the process's own
/// needs after a guest used all of its part.
const HOST_STACK_RESERVE: usize = 256 << 10;

impl Store {
    /// A store with the default limits.
    ///
    /// # Errors
    /// When the system refuses what trap handling needs.
    pub fn new(engine: &Engine) -> Result<Store, StoreError> {
        Store::with_config(engine, StoreConfig::default())
    }

    /// A store with these limits, bound to the calling thread.
    ///
    /// # Errors
    /// When the system refuses what trap handling needs.
    pub fn with_config(engine: &Engine, config: StoreConfig) -> Result<Store, StoreError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        trap::install().map_err(StoreError::Handlers)?;
        sys::ensure_signal_stack().map_err(StoreError::SignalStack)?;
        let stack = sys::stack_bounds().map_err(StoreError::Stack)?;
        let inner = StoreInner {
            record: StoreRecord {
                activation: Activation::NONE,
                raise: sys::raise as *const () as *const u8,
            },
            this: ptr::null_mut(),
            id: StoreId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            engine: engine.clone(),
            config,
            stack_floor: stack.start + HOST_STACK_RESERVE,
            stack_limit: usize::MAX,
            codes: CodeList::default(),
            instances: Vec::new(),
            memories: Vec::new(),
            tables: Vec::new(),
            globals: Vec::new(),
            host_funcs: Vec::new(),
            tags: Vec::new(),
            held: Held::default(),
            gc: Gc::default(),
            supertypes: None,
            signatures: Vec::new(),
            pending: None,
            trap: RawTrap::default(),
            resume: Resume::default(),
        };
        let inner = NonNull::from(Box::leak(Box::new(inner)));
        // SAFETY: just leaked; nothing else refers to it.
        unsafe { (*inner.as_ptr()).this = inner.as_ptr() };
        Ok(Store { inner, owns: PhantomData })
    }

    /// The engine it belongs to.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &get(self).engine
    }

    /// Its limits.
    #[must_use]
    pub fn config(&self) -> StoreConfig {
        get(self).config
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: leaked from a box by `with_config`. No activation is on the stack: each one holds
        // an exclusive borrow of this value.
        drop(unsafe { Box::from_raw(self.inner.as_ptr()) });
    }
}

/// What stands for a store: a [`Store`] or, inside a host function, the [`Caller`](super::Caller).
pub trait AsStore: sealed::Sealed {}

pub(super) mod sealed {
    /// Keeps [`AsStore`](super::AsStore) to the engine's own types.
    pub trait Sealed {
        /// The store.
        #[doc(hidden)]
        fn pointer(&self) -> StorePointer;
    }

    /// A store's address, for the engine alone.
    #[derive(Clone, Copy, Debug)]
    pub struct StorePointer(pub(in crate::runtime) std::ptr::NonNull<super::StoreInner>);
}

use sealed::StorePointer;

impl AsStore for Store {}
impl sealed::Sealed for Store {
    fn pointer(&self) -> StorePointer {
        StorePointer(self.inner)
    }
}

/// The raw pointer, for entering compiled code.
pub(super) fn pointer(store: &mut impl AsStore) -> NonNull<StoreInner> {
    store.pointer().0
}

/// A short borrow of a store.
pub(super) fn get(store: &impl AsStore) -> &StoreInner {
    // SAFETY: the store lives as long as whatever stands for it; it is borrowed shared, so nobody
    // has an exclusive borrow, and no compiled code runs meanwhile (see the module's text).
    unsafe { store.pointer().0.as_ref() }
}

/// A short exclusive borrow of a store.
pub(super) fn get_mut(store: &mut impl AsStore) -> &mut StoreInner {
    // SAFETY: as in `get`; the borrow is exclusive.
    unsafe { store.pointer().0.as_mut() }
}

impl StoreInner {
    /// Panics when a handle belongs to another store: a bug of the embedder, never of a guest.
    pub(super) fn assert_owns(&self, id: StoreId) {
        assert!(self.id == id, "handle used with a store that it does not belong to");
    }

    pub(super) fn memory(&self, handle: Memory) -> &LinearMemory {
        self.assert_owns(handle.store);
        &self.memories[handle.index as usize]
    }

    pub(super) fn memory_mut(&mut self, handle: Memory) -> &mut LinearMemory {
        self.assert_owns(handle.store);
        &mut self.memories[handle.index as usize]
    }

    pub(super) fn add_memory(&mut self, memory: LinearMemory) -> Memory {
        self.memories.push(memory);
        Memory { store: self.id, index: self.memories.len() as u32 - 1 }
    }

    /// The store's handle of a shared memory.
    pub(super) fn memory_of_shared(&mut self, shared: &SharedMemory) -> Memory {
        let is_it = |known: &LinearMemory| known.shared().is_some_and(|known| known.is(shared));
        if let Some(index) = self.memories.iter().position(is_it) {
            return Memory { store: self.id, index: index as u32 };
        }
        let mut memory = LinearMemory::from_shared(shared.clone());
        memory.attach_own();
        self.add_memory(memory)
    }

    /// Whether a fault at `address` hit the inaccessible part of a memory. Runs inside the signal
    /// handler.
    pub(super) fn guards(&self, address: usize) -> bool {
        self.memories.iter().any(|memory| memory.guards(address))
    }

    /// Of each memory the bytes that it has, and the most that it may have.
    pub(super) fn memory_sizes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.memories.iter().map(LinearMemory::sizes)
    }

    pub(super) fn table(&self, handle: Table) -> &TableInner {
        self.assert_owns(handle.store);
        &self.tables[handle.index as usize]
    }

    pub(super) fn table_mut(&mut self, handle: Table) -> &mut TableInner {
        self.assert_owns(handle.store);
        &mut self.tables[handle.index as usize]
    }

    /// Copies elements between two tables or within one; `None` when out of bounds.
    pub(super) fn copy_table(
        &mut self,
        (dst_table, dst): (Table, u64),
        (src_table, src): (Table, u64),
        len: u64,
    ) -> Option<()> {
        if dst_table == src_table {
            return self.table_mut(dst_table).copy_within(dst, src, len);
        }
        let (to, from) = (dst_table.index as usize, src_table.index as usize);
        let [to, from] = self.tables.get_disjoint_mut([to, from]).ok()?;
        to.copy_from(dst, from, src, len)
    }

    /// Copies bytes between two memories or within one; `None` when out of bounds.
    pub(super) fn copy_memory(
        &mut self,
        (dst_memory, dst): (Memory, u64),
        (src_memory, src): (Memory, u64),
        len: u64,
    ) -> Option<()> {
        if dst_memory == src_memory {
            return self.memory_mut(dst_memory).copy_within(dst, src, len);
        }
        let (to, from) = (dst_memory.index as usize, src_memory.index as usize);
        let [to, from] = self.memories.get_disjoint_mut([to, from]).ok()?;
        to.copy_from(dst, from, src, len)
    }

    pub(super) fn add_table(&mut self, table: TableInner) -> Table {
        self.tables.push(table);
        Table { store: self.id, index: self.tables.len() as u32 - 1 }
    }

    pub(super) fn add_global(&mut self, cell: GlobalCell) -> NonNull<GlobalCell> {
        let cell = Stable::new(Box::new(cell));
        let pointer = cell.pointer();
        self.globals.push(cell);
        pointer
    }

    /// Adds a tag and gives its place.
    pub(super) fn add_tag(&mut self, type_id: TypeId, name: Option<Arc<str>>) -> u32 {
        let index = self.tags.len() as u32;
        self.tags.push(Stable::new(Box::new(TagRecord { index, type_id, name })));
        index
    }

    pub(super) fn tag(&self, index: u32) -> &TagRecord {
        self.tags[index as usize].get()
    }

    /// Keeps an exception from being collected as long as the host has the result.
    pub(super) fn hold(&mut self, exception: RawException) -> Arc<RawException> {
        self.held.add(exception)
    }

    /// Lets compiled code find the supertypes of all types that there are; before this is called
    /// for the first time, no code needs them.
    pub(super) fn supertypes(&mut self) -> *const Row {
        self.supertypes.get_or_insert_default();
        self.cover_types();
        self.supertypes.as_ref().map_or(ptr::null(), Supertypes::as_ptr)
    }

    /// Takes types in that were registered since: before anything of such a type can be seen.
    pub(super) fn cover_types(&mut self) {
        let Some(supertypes) = &mut self.supertypes else { return };
        if supertypes.cover(self.engine.types()) {
            let table = supertypes.as_ptr();
            for instance in &mut self.instances {
                instance.get_mut().set_supertypes(table);
            }
        }
    }

    /// Marks the objects that globals and tables refer to, and what the host holds.
    pub(super) fn mark_roots(&self, marker: &mut Marker<'_>) {
        for instance in &self.instances {
            instance.get().mark(marker);
        }
        for global in &self.globals {
            // Globals of the host do not know their type here; a number that looks like a
            // reference only keeps an object alive.
            let [a, b, c, d, ..] = global.get().0;
            marker.reference(u32::from_le_bytes([a, b, c, d]));
        }
        for table in &self.tables {
            table.handles().iter().for_each(|&handle| marker.reference(handle));
        }
        for exception in self.held.iter() {
            marker.reference(exception.bits());
        }
    }

    /// How to get in and out of functions of a type, if a module of this store has such.
    pub(super) fn signature(&self, type_id: TypeId) -> Option<Signature> {
        self.signatures.get(type_id.number() as usize).copied().flatten()
    }

    /// Makes a function of the host that belongs to no import.
    pub(super) fn add_host_func(&mut self, func: Rc<HostFunc>) -> NonNull<FuncRef> {
        let ty = FuncType { params: func.params.to_vec(), results: func.results.to_vec() };
        let type_id = self.engine.define_func(ty);
        self.cover_types();
        let store = self.record_pointer();
        let record = func.record(store, CallersMemory::None);
        let code = self.signature(type_id).map_or(ptr::null(), |signature| signature.exit);
        let func_ref = FuncRef { code, ctx: ptr::null_mut(), type_id };
        let entry = HostEntry { record, func: func_ref, _closure: func };
        let entry = Stable::new(Box::new(entry));
        let raw = entry.pointer().as_ptr();
        self.host_funcs.push(entry);
        // SAFETY: the entry lives as long as the store and nothing else refers to it yet.
        unsafe {
            (*raw).func.ctx = (&raw mut (*raw).record).cast();
            NonNull::new_unchecked(&raw mut (*raw).func)
        }
    }

    /// The address that contexts and host records hold.
    pub(super) fn record_pointer(&self) -> *mut StoreRecord {
        self.this.cast()
    }

    /// Takes a module's code in: from now on faults in it are traps, and its trampolines serve all
    /// functions of their types.
    pub(super) fn add_code(&mut self, module: &Module) {
        if !self.codes.add(module) {
            return;
        }
        let types = module.info().type_signatures.values().zip(module.type_ids());
        for (&sig, &type_id) in types {
            let Some(sig) = sig else { continue };
            let place = type_id.number() as usize;
            if self.signatures.len() <= place {
                self.signatures.resize(place + 1, None);
            }
            let signature = self.signatures[place].get_or_insert_with(|| Signature {
                entry: module.entry_trampoline(sig),
                exit: module.exit_trampoline(sig),
            });
            for entry in &mut self.host_funcs {
                let func = &mut entry.get_mut().func;
                if func.type_id == type_id && func.code.is_null() {
                    func.code = signature.exit;
                }
            }
        }
    }

    /// Sets the stack limit of all contexts for an outermost call made at stack address `sp`.
    pub(super) fn set_stack_limit(&mut self, sp: usize) {
        let limit = sp.saturating_sub(self.config.max_wasm_stack).max(self.stack_floor);
        if limit != self.stack_limit {
            self.stack_limit = limit;
            for instance in &mut self.instances {
                instance.get_mut().set_stack_limit(limit);
            }
        }
    }
}
