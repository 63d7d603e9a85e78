//! `take`: a program after its initialisation, as a code image.
//!
//! What a program does before it has read anything, an argument, a file, the time, it does the same on
//! every start. [`take`] does it once: the code stays as it is, memories and globals begin as they
//! were left. Wherever that image is mapped, its pages are copied when they are written.
//!
//! Initialisation is guest code, so whoever takes a snapshot of a module that is not his own does it
//! in a process that has nothing to lose. It can call no import. What an image cannot hold in place of
//! the state is [refused](SnapshotError); the program then runs its initialisation at each start, as
//! [`command`](crate::command) has it, and does the same.

use std::fs::File;

use cranelift_entity::EntityRef;

use crate::image::{ImageBuilder, ImageError, PAGE, Section};
use crate::module::types::ValType;
use crate::module::{
    ConstExpr, ConstOp, DataMode, ElementItems, ElementMode, ExportIndex, INITIALIZE, ModuleInfo,
};
use crate::runtime::{
    CallError, Caller, Engine, ExternType, HostError, Instance, InstantiateError, Linker,
    LoadError, Module, State, Store, StoreError, Val,
};

/// Most runs of pages: each costs a mapping at every start, and a process has some 65,000.
const MAX_RUNS: usize = 8192;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SnapshotError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it is initialised already")]
    Done,
    #[error("it exports no function `{}` without parameters and results", .0.escape_debug())]
    Export(String),
    #[error("it imports more than functions: `{}` `{}`", .0.escape_debug(), .1.escape_debug())]
    Import(String, String),
    #[error(transparent)]
    Instantiate(#[from] InstantiateError),
    #[error("its initialisation failed: {0}")]
    Failed(#[from] CallError),
    #[error("its memory can be shared between threads")]
    Shared,
    #[error("its memory of {0} bytes is no number of pages of {PAGE} bytes")]
    Unaligned(usize),
    #[error("its memory lies in more than {MAX_RUNS} pieces between zeros")]
    Scattered,
    #[error("its initialisation changed a table")]
    Table,
    #[error("its initialisation changed a global that holds a reference")]
    Reference,
    #[error("its initialisation left objects on the heap of structures and arrays")]
    Objects,
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// What an import says when it is called.
#[derive(Debug, thiserror::Error)]
#[error(
    "it called the import `{}` `{}`, and there is nothing behind imports before the start",
    .module.escape_debug(), .name.escape_debug()
)]
struct ImportCalled {
    module: String,
    name: String,
}

/// Initialises the program of a code image and gives the image that starts from there: it runs the
/// start function, `_initialize` if there is one, and `export`.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings, snapshot};
/// use coracle_engine::runtime::{Engine, Linker, Module, Store, Val};
/// # use std::io::Write as _;
/// let wat = r#"(module (global $g (mut i32) (i32.const 1))
///     (func (export "wizer.initialize") (global.set $g (i32.const 42)))
///     (func (export "get") (result i32) (global.get $g)))"#;
/// let mut file = tempfile::tempfile()?;
/// file.write_all(&compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let image = snapshot::take(&file, "wizer.initialize")?;
///
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &image)?;
/// let mut store = Store::new(&engine)?;
/// let instance = Linker::new(&engine).instantiate(&mut store, &module)?;
/// let get = instance.func(&store, "get").ok_or("no get")?;
/// assert_eq!(get.invoke(&mut store, &[])?, [Val::I32(42)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the image cannot be loaded, its initialisation fails, or its state cannot be held by an image.
pub fn take(image: &File, export: &str) -> Result<Vec<u8>, SnapshotError> {
    let engine = Engine::new();
    let module = Module::from_file(&engine, image)?;
    let info = module.info();
    if info.initialized {
        return Err(SnapshotError::Done);
    }
    let reactor = matches!(info.export(INITIALIZE), Some(ExportIndex::Func(_)));
    let reactor = (reactor && export != INITIALIZE).then_some(INITIALIZE);
    let calls: Vec<&str> = reactor.into_iter().chain([export]).collect();
    if let Some(name) = calls.iter().find(|name| info.procedure(name).is_none()) {
        return Err(SnapshotError::Export((*name).to_owned()));
    }
    let mut store = Store::new(&engine)?;
    let instance = linker(&module)?.instantiate_unstarted(&mut store, &module)?;
    let before = instance.state(&mut store);
    instance.run_start(&mut store)?;
    for name in calls {
        if let Some(function) = instance.func(&store, name) {
            function.call(&mut store, &[], &mut Vec::new())?;
        }
    }
    let after = instance.state(&mut store);
    build(&module, &store, instance, &before, &after)
}

/// Defines every import as a function that fails.
fn linker(module: &Module) -> Result<Linker, SnapshotError> {
    let engine = module.engine();
    let mut linker = Linker::new(engine);
    for (import, (_, _, ty)) in module.info().imports.iter().zip(module.imports()) {
        let (from, name) = (import.module.clone(), import.name.clone());
        let ExternType::Func(ty) = ty else { return Err(SnapshotError::Import(from, name)) };
        let called = move |_: Caller<'_>, _: &[Val], _: &mut [Val]| -> Result<(), HostError> {
            let (module, name) = (from.clone(), name.clone());
            Err(ImportCalled { module, name }.into())
        };
        let ty = engine.func_type(ty).clone();
        linker.func_new(import.module.clone(), import.name.clone(), ty, called);
    }
    Ok(linker)
}

fn build(
    module: &Module,
    store: &Store,
    instance: Instance,
    before: &State,
    after: &State,
) -> Result<Vec<u8>, SnapshotError> {
    if after.objects {
        return Err(SnapshotError::Objects);
    }
    if before.tables != after.tables {
        return Err(SnapshotError::Table);
    }
    let mut image = ImageBuilder::new();
    let changed = [Section::Memory, Section::Data, Section::Meta];
    for section in Section::all().filter(|section| !changed.contains(section)) {
        image.section(section).extend_from_slice(module.section(section));
    }
    let mut meta = module.meta().clone();
    let info = &mut meta.module;
    memories(info, store, instance, &mut image)?;
    globals(info, before, after)?;
    segments(info, after, module.section(Section::Data), &mut image);
    info.start = None;
    info.initialized = true;
    Ok(image.finish(&meta)?)
}

/// The contents of memories, and their sizes.
fn memories(
    info: &mut ModuleInfo,
    store: &Store,
    instance: Instance,
    image: &mut ImageBuilder,
) -> Result<(), SnapshotError> {
    info.memory_images.clear();
    for index in info.memories.keys() {
        let memory = instance.memory_at(store, index);
        if memory.shared(store).is_some() {
            return Err(SnapshotError::Shared);
        }
        let bytes = memory.data(store);
        if !bytes.len().is_multiple_of(PAGE as usize) {
            return Err(SnapshotError::Unaligned(bytes.len()));
        }
        info.memories[index].min = memory.size(store);
        image.add_contents(info, index, 0, bytes);
    }
    if info.memory_images.len() > MAX_RUNS {
        return Err(SnapshotError::Scattered);
    }
    Ok(())
}

/// The values of globals as constants. Those that are immutable have no others than before.
fn globals(info: &mut ModuleInfo, before: &State, after: &State) -> Result<(), SnapshotError> {
    for ((index, ty), init) in info.globals.iter().zip(&mut info.global_inits) {
        if !ty.mutable {
            continue;
        }
        let value = after.globals[index.index()];
        let constant = match ty.content {
            ValType::I32 => ConstOp::I32Const(value as u32 as i32),
            ValType::I64 => ConstOp::I64Const(value as u64 as i64),
            ValType::F32 => ConstOp::F32Const(value as u32),
            ValType::F64 => ConstOp::F64Const(value as u64),
            ValType::V128 => ConstOp::V128Const(value),
            ValType::Ref(_) if value == before.globals[index.index()] => continue,
            ValType::Ref(_) => return Err(SnapshotError::Reference),
        };
        *init = ConstExpr { ops: vec![constant] };
    }
    Ok(())
}

/// What is left of segments. Active ones of elements are written at each start: tables are as these
/// left them.
fn segments(info: &mut ModuleInfo, after: &State, data: &[u8], image: &mut ImageBuilder) {
    for (index, segment) in &mut info.elements {
        if segment.mode == ElementMode::Passive && !after.elements[index.index()] {
            segment.items = ElementItems::Expressions(Vec::new());
        }
    }
    let mut bytes = Vec::new();
    for (index, segment) in &mut info.data {
        if after.data[index.index()] {
            bytes.push(&data[segment.offset as usize..][..segment.len as usize]);
        } else {
            // Written and dropped, or dropped.
            (segment.mode, segment.offset) = (DataMode::Static, 0);
            bytes.push(&[]);
        }
    }
    image.add_data(info, &bytes);
}
