//! From a module and resolved imports to an instance, in the order of the core specification
//! (section "Instantiation"): allocate, initialise globals and tables, write element then data
//! segments, run the start function.

use std::ptr::NonNull;
use std::rc::Rc;

use cranelift_entity::EntityRef;

use super::builtins::TABLE;
use super::call;
use super::code::Module;
use super::func::CallError;
use super::host::HostFunc;
use super::instance::{Extern, Instance, InstanceInner};
use super::memory::{LinearMemory, Memory, MemoryError};
use super::region::Placement;
use super::registry::TypeId;
use super::store::StoreInner;
use super::supertypes;
use super::sys;
use super::table::{TableError, TableInner};
use super::trap::{Trap, TrapKind};
use super::vmcontext::{
    CallersMemory, Context, FuncImport, FuncRef, GlobalCell, Header, HostRecord, Stable,
};
use crate::abi::layout::CTX_MAGIC_VALUE;
use crate::config::{Addressing, DEDICATED_BASE};
use crate::module::index::{DataIndex, ElemIndex, FuncIndex, MemoryIndex};
use crate::module::{ConstExpr, DataMode, ElementItems, ElementMode, ExportIndex};

/// Why a module cannot be instantiated.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum InstantiateError {
    #[error(
        "unknown import: nothing is defined as `{module}` `{name}` (the module wants a {wanted})"
    )]
    UnknownImport { module: String, name: String, wanted: String },
    #[error(
        "incompatible import type: `{module}` `{name}` is a {found}, the module wants a {wanted}"
    )]
    IncompatibleImport { module: String, name: String, found: String, wanted: String },
    #[error("import `{module}` `{name}` belongs to another store")]
    ForeignImport { module: String, name: String },
    #[error("module and store belong to different engines")]
    ForeignModule,
    #[error(
        "module was compiled for dedicated addressing, but imports a memory that lies elsewhere"
    )]
    NotDedicated,
    #[error(
        "cannot reserve address space for the heap of objects: {0}; check the limit on address space (ulimit -v)"
    )]
    Heap(#[source] std::io::Error),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("instantiation failed: {0}")]
    Failed(#[source] CallError),
}

impl InstantiateError {
    fn trap(kind: TrapKind) -> InstantiateError {
        InstantiateError::Failed(CallError::Trap(Trap::without_frames(kind)))
    }
}

/// An import that was found and has the right type.
#[derive(Debug)]
pub(super) enum Resolved {
    Host(Rc<HostFunc>),
    Extern(Extern),
}

/// Instantiates a module whose imports are resolved, in their order. Its start function has not run
/// yet: see [`start`].
///
/// # Safety
/// The imports must belong to the store and match the module's.
pub(super) unsafe fn instantiate(
    store: &mut StoreInner,
    module: &Module,
    imports: Vec<Resolved>,
) -> Result<Instance, InstantiateError> {
    let pinned = store.gc_pinned();
    let instance = prepare(store, module, imports);
    // From here on the instance's globals, tables and segments keep its objects alive.
    store.gc_unpin(pinned);
    instance
}

/// Runs an instance's start function, if it has one.
///
/// # Safety
/// `store` must be live, and no Rust reference to it may be alive. The instance must be one of its
/// own.
pub(super) unsafe fn start(
    store: NonNull<StoreInner>,
    instance: Instance,
) -> Result<(), InstantiateError> {
    // SAFETY: the caller's promise; the borrow ends before compiled code is entered.
    let start = unsafe {
        let store = store.as_ref();
        let inner = store.instances[instance.index as usize].get();
        inner.module.info().start.map(|func| start_function(store, inner, func))
    };
    if let Some(Start { entry, ctx, code }) = start {
        // SAFETY: the start function has no parameters and no results, which the validator
        // checked; entry trampoline, context and code belong together; no reference is alive.
        unsafe { call::enter(store, entry, ctx, code, std::ptr::null_mut()) }
            .map_err(InstantiateError::Failed)?;
    }
    Ok(())
}

/// Everything up to the start function. Objects that it makes are pinned.
fn prepare(
    store: &mut StoreInner,
    module: &Module,
    imports: Vec<Resolved>,
) -> Result<Instance, InstantiateError> {
    let instance = allocate(store, module, imports)?;
    let inner = store.instances[instance.index as usize].pointer().as_ptr();
    // SAFETY: the instance is a separate allocation that no other reference refers to, and it is
    // not reached through the store meanwhile: nothing collects garbage.
    write_segments(store, unsafe { &mut *inner })?;
    Ok(instance)
}

/// Makes the instance and everything that it defines, and adds it to the store.
fn allocate(
    store: &mut StoreInner,
    module: &Module,
    imports: Vec<Resolved>,
) -> Result<Instance, InstantiateError> {
    let memories = new_memories(store, module)?;
    let tables = new_tables(store, module)?;
    let (gc_heap, supertypes) = objects(store, module).map_err(InstantiateError::Heap)?;
    // Nothing below fails unless initial values have no room in the heap of objects: what was made
    // so far is not left behind in the store.
    store.add_code(module);
    let ctx = Context::new(
        *module.layout(),
        Header {
            magic: CTX_MAGIC_VALUE,
            stack_limit: store.stack_limit,
            store: store.record_pointer(),
            builtins: TABLE.as_ptr(),
            instance: std::ptr::null_mut(),
            gc_heap,
            supertypes,
            lazy: sys::ask as *const u8,
        },
    );
    let mut instance = InstanceInner::new(ctx, module);
    let ImportedFuncs { types, hosts } = link(store, &mut instance, imports, memories, tables);
    link_hosts(store, &mut instance, hosts);
    make_tags(store, &instance);
    fill_types_and_func_refs(&instance, &types);
    let trap = InstantiateError::trap;
    initialise_globals(store, &instance).map_err(trap)?;
    initialise_tables(store, &instance).map_err(trap)?;
    evaluate_elements(store, &mut instance).map_err(trap)?;
    let index = store.instances.len() as u32;
    let instance = Stable::new(Box::new(instance));
    let address = instance.pointer().as_ptr().cast();
    // SAFETY: the header is the context's own.
    unsafe { (*instance.get().ctx.header().as_ptr()).instance = address };
    store.instances.push(instance);
    Ok(Instance { store: store.id, index })
}

fn new_memories(
    store: &StoreInner,
    module: &Module,
) -> Result<Vec<LinearMemory>, InstantiateError> {
    let info = module.info();
    let dedicated = module.settings().addressing == Addressing::Dedicated;
    let imported = info.imported.memories as usize;
    let mut memories = Vec::with_capacity(info.memories.len() - imported);
    for (index, &ty) in info.memories.iter().skip(imported) {
        let placement = match dedicated && index.index() == 0 {
            true => Placement::Dedicated,
            false => Placement::Anywhere,
        };
        memories.push(LinearMemory::new(ty, placement, store.config.memory_limits())?);
    }
    let (file, section) = module.memory_section();
    for image in &info.memory_images {
        let memory = &mut memories[image.memory.index() - imported];
        let guest = image.guest_offset..image.guest_offset + image.len;
        memory.map_image(guest, file, section + image.image_offset)?;
    }
    Ok(memories)
}

fn new_tables(store: &StoreInner, module: &Module) -> Result<Vec<TableInner>, InstantiateError> {
    let info = module.info();
    let defined = info.tables.values().skip(info.imported.tables as usize);
    let types = defined.map(|ty| ty.map(|ty| module.type_id(ty)));
    let tables = types.map(|ty| TableInner::new(ty, store.config.max_table_elements));
    Ok(tables.collect::<Result<_, _>>()?)
}

/// Imported functions.
struct ImportedFuncs {
    /// Their own types, which may be subtypes of what the module declares.
    types: Vec<TypeId>,
    /// Those of the host that have no record yet, with their indices.
    hosts: Vec<(u32, Rc<HostFunc>)>,
}

/// Writes imports and definitions of memories, tables, globals and functions into the context, but
/// for functions of the host: their records need the memories.
fn link(
    store: &mut StoreInner,
    instance: &mut InstanceInner,
    imports: Vec<Resolved>,
    new_memories: Vec<LinearMemory>,
    new_tables: Vec<TableInner>,
) -> ImportedFuncs {
    let ctx = &instance.ctx;
    let info = instance.module.info();
    let mut memories = Vec::with_capacity(info.memories.len());
    let mut tables = Vec::with_capacity(info.tables.len());
    let mut types = Vec::with_capacity(info.imported.functions as usize);
    let mut hosts = Vec::new();
    let (mut globals, mut tags) = (0, 0);
    for import in imports {
        // SAFETY: the fields belong to a context that no code uses yet; definitions, cells and
        // records of the store live as long as it does, hence as long as the instance.
        unsafe {
            match import {
                Resolved::Host(func) => {
                    let index = FuncIndex::new(types.len());
                    hosts.push((index.as_u32(), func));
                    types.push(instance.module.type_id(info.functions[index].ty));
                }
                Resolved::Extern(Extern::Func(func)) => {
                    let FuncRef { code, ctx: callee, type_id } = *func.record(store).as_ref();
                    let import = FuncImport { code, ctx: callee };
                    ctx.imported_func(types.len() as u32).write(import);
                    types.push(type_id);
                }
                Resolved::Extern(Extern::Memory(memory)) => {
                    let def = store.memory(memory).def().as_ptr();
                    ctx.imported_memory(memories.len() as u32).write(def);
                    memories.push(memory);
                }
                Resolved::Extern(Extern::Table(table)) => {
                    let def = store.table(table).def().as_ptr();
                    ctx.imported_table(tables.len() as u32).write(def);
                    tables.push(table);
                }
                Resolved::Extern(Extern::Global(global)) => {
                    ctx.imported_global(globals).write(global.cell.as_ptr());
                    globals += 1;
                }
                Resolved::Extern(Extern::Tag(tag)) => {
                    ctx.tag(tags).write(tag.record(store));
                    tags += 1;
                }
            }
        }
    }
    for (n, mut memory) in new_memories.into_iter().enumerate() {
        // SAFETY: contexts live as long as the store, which gets the memory.
        unsafe { memory.attach(ctx.defined_memory(n as u32)) };
        memories.push(store.add_memory(memory));
    }
    for (n, mut table) in new_tables.into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { table.attach(ctx.defined_table(n as u32)) };
        tables.push(store.add_table(table));
    }
    instance.memories = memories.into();
    instance.tables = tables.into();
    ImportedFuncs { types, hosts }
}

/// Makes the tags that the module defines.
fn make_tags(store: &mut StoreInner, instance: &InstanceInner) {
    let info = instance.module.info();
    for (index, &ty) in info.tags.iter().skip(info.imported.tags as usize) {
        let export = info.exports.iter().find(|export| export.index == ExportIndex::Tag(index));
        let name = export.map(|export| export.name.as_str().into());
        let tag = store.add_tag(instance.module.type_id(ty), name);
        // SAFETY: the field belongs to a context that no code uses yet; tags live as long as the
        // store.
        unsafe { instance.ctx.tag(index.as_u32()).write(store.tag(tag)) };
    }
}

/// Makes the records of imported host functions and writes their imports.
fn link_hosts(
    store: &mut StoreInner,
    instance: &mut InstanceInner,
    hosts: Vec<(u32, Rc<HostFunc>)>,
) {
    if hosts.is_empty() {
        return;
    }
    let memory = callers_memory(store, instance);
    let record_of_store = store.record_pointer();
    let records: Box<[HostRecord]> =
        hosts.iter().map(|(_, func)| func.record(record_of_store, memory)).collect();
    let records = Stable::new(records);
    let info = instance.module.info();
    for (n, (index, _)) in hosts.iter().enumerate() {
        let sig = info.functions[FuncIndex::new(*index as usize)].signature;
        let code = instance.module.exit_trampoline(sig);
        // SAFETY: `n` is within the array of as many records; the field belongs to a context that
        // no code uses yet.
        unsafe {
            let record = records.pointer().cast::<HostRecord>().add(n).as_ptr();
            instance.ctx.imported_func(*index).write(FuncImport { code, ctx: record.cast() });
        }
    }
    instance.hosts = Some(records);
    instance.closures = hosts.into_iter().map(|(_, func)| func).collect();
}

/// What host functions see as the caller's memory: the one exported as `memory`, else memory 0.
fn callers_memory(store: &StoreInner, instance: &InstanceInner) -> CallersMemory {
    let exported = match instance.module.info().export("memory") {
        Some(ExportIndex::Memory(memory)) => Some(instance.memory(memory)),
        _ => instance.memories.first().copied(),
    };
    exported.map_or(CallersMemory::None, |memory: Memory| store.memory(memory).for_callers())
}

fn fill_types_and_func_refs(instance: &InstanceInner, imported: &[TypeId]) {
    let (ctx, module) = (&instance.ctx, &instance.module);
    for (n, &id) in module.type_ids().iter().enumerate() {
        // SAFETY: the field belongs to a context that no code uses yet.
        unsafe { ctx.type_id(n as u32).write(id) };
    }
    let info = module.info();
    for (index, function) in &info.functions {
        let Some(n) = function.func_ref else { continue };
        let (code, callee) = code_and_context(instance, index);
        let own = imported.get(index.index()).copied();
        let type_id = own.unwrap_or_else(|| module.type_id(function.ty));
        // SAFETY: as above.
        unsafe { ctx.func_ref(n).write(FuncRef { code, ctx: callee, type_id }) };
    }
}

/// What a call of a function needs.
fn code_and_context(instance: &InstanceInner, func: FuncIndex) -> (*const u8, *mut u8) {
    match instance.module.info().defined_func(func) {
        Some(defined) => (instance.module.function(defined), instance.ctx.as_ptr()),
        None => {
            // SAFETY: `link` and `link_hosts` wrote all imported functions.
            let import = unsafe { instance.ctx.imported_func(func.as_u32()).as_ref() };
            (import.code, import.ctx)
        }
    }
}

/// What a context holds for code that uses objects: the heap's base and the table of supertypes.
fn objects(
    store: &mut StoreInner,
    module: &Module,
) -> std::io::Result<(*mut u8, *const supertypes::Row)> {
    if !module.info().uses_objects && module.info().tags.is_empty() {
        // Its types may still be those of functions that other instances cast.
        store.cover_types();
        return Ok((std::ptr::null_mut(), std::ptr::null()));
    }
    Ok((store.gc_base()?, store.supertypes()))
}

fn initialise_globals(store: &mut StoreInner, instance: &InstanceInner) -> Result<(), TrapKind> {
    for (n, init) in instance.module.info().global_inits.iter().enumerate() {
        let value = GlobalCell(store.evaluate(instance, init)?.to_le_bytes());
        // SAFETY: the field belongs to a context that no code uses yet.
        unsafe { instance.ctx.defined_global(n as u32).write(value) };
    }
    Ok(())
}

fn initialise_tables(store: &mut StoreInner, instance: &InstanceInner) -> Result<(), TrapKind> {
    let info = instance.module.info();
    let defined = &instance.tables[info.imported.tables as usize..];
    for (&table, init) in defined.iter().zip(&info.table_inits) {
        if let Some(init) = init {
            let value = store.evaluate(instance, init)? as u64;
            let table = store.table_mut(table);
            // The whole table is in bounds of itself.
            let _ = table.fill(0, value, table.size());
        }
    }
    Ok(())
}

/// Evaluates the expressions of element segments that are given by such. Each runs once: what it
/// makes has an identity.
fn evaluate_elements(store: &mut StoreInner, instance: &mut InstanceInner) -> Result<(), TrapKind> {
    let module = instance.module.clone();
    for (index, segment) in &module.info().elements {
        if let (ElementItems::Expressions(exprs), false) =
            (&segment.items, matches!(segment.mode, ElementMode::Declared))
        {
            let values = exprs.iter().map(|expr| Ok(store.evaluate(instance, expr)? as u64));
            instance.set_elements(index, values.collect::<Result<_, TrapKind>>()?);
        }
    }
    Ok(())
}

/// Writes active element segments, then active data segments, and drops them. What was written
/// before one that is out of bounds stays written.
fn write_segments(
    store: &mut StoreInner,
    instance: &mut InstanceInner,
) -> Result<(), InstantiateError> {
    let module = instance.module.clone();
    for (index, segment) in &module.info().elements {
        if let ElementMode::Active { table, offset } = &segment.mode {
            let wide = module.info().tables[*table].table64;
            let dst = start_of_segment(instance, offset, wide);
            let table = instance.table(*table);
            write_elements(store, instance, table, dst, index)
                .ok_or(InstantiateError::trap(TrapKind::TableOutOfBounds))?;
            instance.drop_elem(index);
        }
    }
    for (index, segment) in &module.info().data {
        if let DataMode::Active { memory, offset } = &segment.mode {
            let wide = module.info().memories[*memory].memory64;
            let dst = start_of_segment(instance, offset, wide);
            write_data(store, instance, *memory, dst, index)
                .ok_or(InstantiateError::trap(TrapKind::MemoryOutOfBounds))?;
            instance.drop_data(index);
        }
    }
    Ok(())
}

/// The place of a segment in a table or memory with 32- or 64-bit indices.
fn start_of_segment(instance: &InstanceInner, offset: &ConstExpr, wide: bool) -> u64 {
    let value = instance.evaluate(offset);
    if wide { value as u64 } else { u64::from(value as u32) }
}

fn write_elements(
    store: &mut StoreInner,
    instance: &InstanceInner,
    table: super::Table,
    dst: u64,
    index: ElemIndex,
) -> Option<()> {
    let values = instance.elements(index, 0, instance.element_count(index))?;
    store.table_mut(table).write(dst, values)
}

fn write_data(
    store: &mut StoreInner,
    instance: &InstanceInner,
    memory: MemoryIndex,
    dst: u64,
    index: DataIndex,
) -> Option<()> {
    store.memory_mut(instance.memory(memory)).write(dst, instance.data(index))
}

struct Start {
    entry: *const u8,
    ctx: *mut u8,
    code: *const u8,
}

fn start_function(store: &StoreInner, instance: &InstanceInner, func: FuncIndex) -> Start {
    debug_assert!(!store.instances.is_empty());
    let (code, ctx) = code_and_context(instance, func);
    let sig = instance.module.info().functions[func].signature;
    Start { entry: instance.module.entry_trampoline(sig), ctx, code }
}

/// Refuses a module for the fixed address whose memory 0 is an import that lies elsewhere.
pub(super) fn check_addressing(
    store: &StoreInner,
    module: &Module,
    imports: &[Resolved],
) -> Result<(), InstantiateError> {
    if module.settings().addressing != Addressing::Dedicated {
        return Ok(());
    }
    let first = imports.iter().find_map(|import| match import {
        Resolved::Extern(Extern::Memory(memory)) => Some(*memory),
        _ => None,
    });
    let elsewhere =
        first.is_some_and(|memory| store.memory(memory).base().addr() as u64 != DEDICATED_BASE);
    if elsewhere { Err(InstantiateError::NotDedicated) } else { Ok(()) }
}
