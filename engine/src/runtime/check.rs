//! What an image must satisfy beyond its header before its numbers are used as indices and offsets.
//!
//! The text is trusted by its origin; these checks turn a damaged description into an error instead
//! of a panic or a wild mapping, and refuse what this machine cannot run.

mod types;

use cranelift_entity::EntityRef;

use crate::abi::cpu;
use crate::image::{CodeImage, ImageError, Meta, PAGE, Section};
use crate::module::index::{FuncIndex, GlobalIndex};
use crate::module::types::MemoryType;
use crate::module::{
    ConstExpr, ConstOp, DataMode, ElementItems, ElementMode, ExportIndex, ImportType, ModuleInfo,
};

/// Most entries of any index space: keeps the context's size far below 4 GiB.
const MAX_ENTRIES: usize = 1 << 20;

/// Whether this machine can run the image's code.
pub(super) fn machine(meta: &Meta) -> Result<(), ImageError> {
    const EXPECTED: &str = std::env::consts::ARCH;
    if meta.target.split('-').next() != Some(EXPECTED) {
        return Err(ImageError::Target { found: meta.target.clone(), expected: EXPECTED });
    }
    match meta.cpu_features.iter().find(|name| !cpu::has(name)) {
        Some(name) => Err(ImageError::Cpu(name.clone())),
        None => Ok(()),
    }
}

/// Whether all numbers in the description stay within what they index.
pub(super) fn module(info: &ModuleInfo, image: &CodeImage<'_>) -> Result<(), ImageError> {
    ensure(sizes(info), "sizes of the index spaces")?;
    ensure(types::types(info), "types")?;
    ensure(entities(info), "types of tables and globals")?;
    ensure(info.memories.values().all(memory), "types of memories")?;
    ensure(imports(info), "imports")?;
    ensure(exports(info), "exports")?;
    ensure(functions(info), "functions")?;
    ensure(initialisers(info), "initial values")?;
    ensure(elements(info), "element segments")?;
    ensure(data(info, image.section(Section::Data).len() as u64), "data segments")?;
    ensure(memory_images(info, image.section(Section::Memory).len() as u64), "memory images")?;
    let entries = info.defined_funcs() + 2 * info.signatures.len();
    ensure((0..entries).all(|n| image.func(n).is_some()), "function table")
}

fn ensure(holds: bool, what: &'static str) -> Result<(), ImageError> {
    if holds { Ok(()) } else { Err(ImageError::Damaged { what }) }
}

fn sizes(info: &ModuleInfo) -> bool {
    let spaces = [
        (info.functions.len(), info.imported.functions),
        (info.tables.len(), info.imported.tables),
        (info.memories.len(), info.imported.memories),
        (info.globals.len(), info.imported.globals),
        (info.tags.len(), info.imported.tags),
        (info.types.len(), 0),
        (info.signatures.len(), 0),
        (info.escaped_funcs as usize, 0),
    ];
    spaces.iter().all(|&(len, imported)| len <= MAX_ENTRIES && imported as usize <= len)
        && info.global_inits.len() == info.globals.len() - info.imported.globals as usize
        && info.table_inits.len() == info.tables.len() - info.imported.tables as usize
}

fn entities(info: &ModuleInfo) -> bool {
    info.tables.values().all(|ty| types::reference(info, ty.element))
        && info.globals.values().all(|ty| types::value(info, ty.content))
        && info.tags.values().all(|&ty| types::is_func(info, ty))
}

/// Whether a memory's type is one that modules can have: sizes are shifted by its page size.
fn memory(ty: &MemoryType) -> bool {
    matches!(ty.page_size_log2, 0 | 16) && (!ty.shared || ty.max.is_some())
}

fn imports(info: &ModuleInfo) -> bool {
    let mut counts = [0u32; 5];
    for import in &info.imports {
        let (kind, valid) = match import.ty {
            ImportType::Func(ty) => (0, types::is_func(info, ty)),
            ImportType::Table(ty) => (1, types::reference(info, ty.element)),
            ImportType::Memory(ty) => (2, memory(&ty)),
            ImportType::Global(ty) => (3, types::value(info, ty.content)),
            ImportType::Tag(ty) => (4, types::is_func(info, ty)),
        };
        if !valid {
            return false;
        }
        counts[kind] += 1;
    }
    let n = info.imported;
    counts == [n.functions, n.tables, n.memories, n.globals, n.tags]
}

fn exports(info: &ModuleInfo) -> bool {
    info.exports.iter().all(|export| match export.index {
        ExportIndex::Func(func) => can_be_referenced(info, func),
        ExportIndex::Table(table) => info.tables.is_valid(table),
        ExportIndex::Memory(memory) => info.memories.is_valid(memory),
        ExportIndex::Global(global) => info.globals.is_valid(global),
        ExportIndex::Tag(tag) => info.tags.is_valid(tag),
    })
}

fn functions(info: &ModuleInfo) -> bool {
    info.functions.values().all(|function| {
        info.type_signatures.get(function.ty).is_some_and(|&sig| sig == Some(function.signature))
            && function.func_ref.is_none_or(|n| n < info.escaped_funcs)
    }) && info.start.is_none_or(|func| info.functions.is_valid(func))
}

fn can_be_referenced(info: &ModuleInfo, func: FuncIndex) -> bool {
    info.functions.get(func).is_some_and(|function| function.func_ref.is_some())
}

fn initialisers(info: &ModuleInfo) -> bool {
    // An initial value may read imported globals and those defined before it.
    info.global_inits
        .iter()
        .enumerate()
        .all(|(n, init)| const_expr(info, init, info.imported.globals as usize + n))
        && info.table_inits.iter().flatten().all(|init| any_const_expr(info, init))
}

fn any_const_expr(info: &ModuleInfo, expr: &ConstExpr) -> bool {
    const_expr(info, expr, info.globals.len())
}

/// Whether the program is in bounds and leaves exactly one value.
fn const_expr(info: &ModuleInfo, expr: &ConstExpr, readable_globals: usize) -> bool {
    let mut depth = 0usize;
    for &op in &expr.ops {
        let valid = match op {
            ConstOp::GlobalGet(global) => GlobalIndex::index(global) < readable_globals,
            ConstOp::RefFunc(func) => can_be_referenced(info, func),
            _ => true,
        };
        match info.const_operands(op) {
            Some(operands) if valid && operands <= depth => depth = depth - operands + 1,
            _ => return false,
        }
    }
    depth == 1
}

fn elements(info: &ModuleInfo) -> bool {
    info.elements.values().all(|segment| {
        let mode = match &segment.mode {
            ElementMode::Passive | ElementMode::Declared => true,
            ElementMode::Active { table, offset } => {
                info.tables
                    .get(*table)
                    .is_some_and(|ty| ty.element.heap.is_func() == segment.ty.heap.is_func())
                    && any_const_expr(info, offset)
            }
        };
        let items = match &segment.items {
            ElementItems::Functions(funcs) => {
                segment.ty.heap.is_func() && funcs.iter().all(|&func| can_be_referenced(info, func))
            }
            ElementItems::Expressions(exprs) => exprs.iter().all(|expr| any_const_expr(info, expr)),
        };
        mode && items && types::reference(info, segment.ty)
    })
}

fn data(info: &ModuleInfo, available: u64) -> bool {
    info.data.values().all(|segment| {
        let mode = match &segment.mode {
            DataMode::Passive | DataMode::Static => true,
            DataMode::Active { memory, offset } => {
                info.memories.is_valid(*memory) && any_const_expr(info, offset)
            }
        };
        let bytes = matches!(segment.mode, DataMode::Static)
            || segment.offset.checked_add(segment.len).is_some_and(|end| end <= available);
        mode && bytes
    })
}

fn memory_images(info: &ModuleInfo, available: u64) -> bool {
    info.memory_images.iter().all(|image| {
        let aligned = [image.guest_offset, image.image_offset, image.len]
            .iter()
            .all(|value| value.is_multiple_of(PAGE));
        let Some(ty) = info.memories.get(image.memory) else { return false };
        let defined = image.memory.index() >= info.imported.memories as usize;
        let size = ty.min.checked_mul(1 << ty.page_size_log2).unwrap_or(0);
        let within =
            |start: u64, len: u64, size: u64| start.checked_add(len).is_some_and(|end| end <= size);
        aligned
            && defined
            && within(image.guest_offset, image.len, size)
            && within(image.image_offset, image.len, available)
    })
}
