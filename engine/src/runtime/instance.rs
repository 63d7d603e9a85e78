//! Instances: a context filled in for a module, and the handle that embedders use.

use std::ptr::NonNull;

use cranelift_entity::EntityRef;
use smallvec::SmallVec;

use super::builtins::usize_range;
use super::code::Module;
use super::exception::Tag;
use super::func::Func;
use super::gc::Marker;
use super::global::Global;
use super::host::HostFunc;
use super::memory::Memory;
use super::store::{AsStore, StoreId, StoreInner, get};
use super::supertypes::Row;
use super::table::Table;
use super::types::ExternType;
use super::vmcontext::{Context, FuncRef, GlobalCell, HostRecord, Stable, TagRecord};
use crate::module::index::{
    DataIndex, ElemIndex, FuncIndex, GlobalIndex, MemoryIndex, TableIndex, TagIndex,
};
use crate::module::types::ValType;
use crate::module::{ConstExpr, ConstOp, DataMode, ElementItems, ElementMode, ExportIndex};

/// Something that can be imported or exported: core specification, "External Addresses". A copyable
/// handle; using it with another store panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum Extern {
    Func(Func),
    Table(Table),
    Memory(Memory),
    Global(Global),
    Tag(Tag),
}

macro_rules! extern_from {
    ($($ty:ident)*) => {$(
        impl From<$ty> for Extern {
            fn from(item: $ty) -> Extern { Extern::$ty(item) }
        }
    )*};
}

extern_from!(Func Table Memory Global Tag);

impl Extern {
    /// Its type, with the current size of a table or memory as the minimum.
    #[must_use]
    pub fn ty(self, store: &impl AsStore) -> ExternType {
        ExternType::of(get(store), self)
    }
}

/// An instance of a module in a store: core specification, "Module Instances". A copyable handle;
/// using it with another store panics.
///
/// [`Linker::instantiate`](super::Linker::instantiate) makes it. It lives as long as its store.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings};
/// use coracle_engine::runtime::{Engine, Extern, Linker, Module, Store};
/// let wat = r#"(module (func (export "run")) (memory (export "memory") 1))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let mut store = Store::new(&engine)?;
/// let instance = Linker::new(&engine).instantiate(&mut store, &module)?;
/// let names: Vec<&str> = instance.exports(&store).map(|(name, _)| name).collect();
/// assert_eq!(names, ["run", "memory"]);
/// assert!(matches!(instance.export(&store, "run"), Some(Extern::Func(_))));
/// assert!(instance.memory(&store, "run").is_none(), "it is a function");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    pub(super) store: StoreId,
    pub(super) index: u32,
}

impl Instance {
    pub(super) fn inner(self, store: &StoreInner) -> &InstanceInner {
        store.assert_owns(self.store);
        store.instances[self.index as usize].get()
    }

    /// What is exported under a name.
    #[must_use]
    pub fn export(self, store: &impl AsStore, name: &str) -> Option<Extern> {
        self.export_of(get(store), name)
    }

    /// All that it exports, in the module's order: names and what they stand for.
    pub fn exports(self, store: &impl AsStore) -> impl ExactSizeIterator<Item = (&str, Extern)> {
        let store = get(store);
        let inner = self.inner(store);
        let exports = inner.module.info().exports.iter();
        exports.map(|export| (&*export.name, inner.item(store.id, export.index)))
    }

    pub(super) fn export_of(self, store: &StoreInner, name: &str) -> Option<Extern> {
        let inner = self.inner(store);
        Some(inner.item(store.id, inner.module.info().export(name)?))
    }

    /// The function exported under a name.
    #[must_use]
    pub fn func(self, store: &impl AsStore, name: &str) -> Option<Func> {
        match self.export(store, name)? {
            Extern::Func(func) => Some(func),
            _ => None,
        }
    }

    /// The memory exported under a name.
    #[must_use]
    pub fn memory(self, store: &impl AsStore, name: &str) -> Option<Memory> {
        match self.export(store, name)? {
            Extern::Memory(memory) => Some(memory),
            _ => None,
        }
    }

    /// The table exported under a name.
    #[must_use]
    pub fn table(self, store: &impl AsStore, name: &str) -> Option<Table> {
        match self.export(store, name)? {
            Extern::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The global exported under a name.
    #[must_use]
    pub fn global(self, store: &impl AsStore, name: &str) -> Option<Global> {
        match self.export(store, name)? {
            Extern::Global(global) => Some(global),
            _ => None,
        }
    }

    /// The tag exported under a name.
    #[must_use]
    pub fn tag(self, store: &impl AsStore, name: &str) -> Option<Tag> {
        match self.export(store, name)? {
            Extern::Tag(tag) => Some(tag),
            _ => None,
        }
    }

    /// Its module.
    #[must_use]
    pub fn module(self, store: &impl AsStore) -> &Module {
        &self.inner(get(store)).module
    }
}

/// An instance's live state. Compiled code knows its context, runtime calls this whole.
#[derive(Debug)]
pub(super) struct InstanceInner {
    pub(super) ctx: Context,
    pub(super) module: Module,
    pub(super) memories: Box<[Memory]>,
    pub(super) tables: Box<[Table]>,
    /// Element segments.
    elems: Box<[Elements]>,
    /// Data segments that are dropped.
    dropped_data: Box<[bool]>,
    /// Contexts of the imported host functions, and what keeps their closures alive.
    pub(super) hosts: Option<Stable<[HostRecord]>>,
    pub(super) closures: Vec<std::rc::Rc<HostFunc>>,
}

/// The elements of a segment.
#[derive(Debug)]
enum Elements {
    /// Those of the module's list of functions, made references when they are asked for.
    Functions,
    /// As tables hold them. None once the segment is dropped.
    Values(Box<[u64]>),
}

impl Elements {
    fn none() -> Elements {
        Elements::Values(Box::default())
    }
}

impl InstanceInner {
    pub(super) fn new(ctx: Context, module: &Module) -> InstanceInner {
        let info = module.info();
        let elems = info.elements.values().map(|segment| match (&segment.mode, &segment.items) {
            // Declared segments only name functions; they are dropped from the start.
            (ElementMode::Declared, _) => Elements::none(),
            (_, ElementItems::Functions(_)) => Elements::Functions,
            (_, ElementItems::Expressions(_)) => Elements::none(),
        });
        let dropped_data = info.data.values().map(|s| matches!(s.mode, DataMode::Static));
        InstanceInner {
            ctx,
            memories: Box::default(),
            tables: Box::default(),
            elems: elems.collect(),
            dropped_data: dropped_data.collect(),
            hosts: None,
            closures: Vec::new(),
            module: module.clone(),
        }
    }

    pub(super) fn memory(&self, index: MemoryIndex) -> Memory {
        self.memories[index.index()]
    }

    pub(super) fn table(&self, index: TableIndex) -> Table {
        self.tables[index.index()]
    }

    /// Where a global's value lies.
    pub(super) fn global(&self, index: GlobalIndex) -> NonNull<GlobalCell> {
        let imported = self.module.info().imported.globals;
        match index.as_u32().checked_sub(imported) {
            Some(defined) => self.ctx.defined_global(defined),
            // SAFETY: instantiation wrote the pointers of all imported globals before it read any;
            // they are not null.
            None => unsafe {
                NonNull::new_unchecked(self.ctx.imported_global(index.as_u32()).read())
            },
        }
    }

    /// The record of a tag.
    pub(super) fn tag(&self, index: TagIndex) -> *const TagRecord {
        // SAFETY: instantiation wrote the pointers of all tags.
        unsafe { self.ctx.tag(index.as_u32()).read() }
    }

    /// The function reference record of a function that has one.
    fn func_ref(&self, func: FuncIndex) -> NonNull<FuncRef> {
        match self.module.info().functions[func].func_ref {
            Some(n) => self.ctx.func_ref(n),
            // `check::module` refuses images that name such a function as a reference.
            None => unreachable!("function {func:?} is no reference"),
        }
    }

    /// A handle of what an index names.
    pub(super) fn item(&self, store: StoreId, index: ExportIndex) -> Extern {
        match index {
            ExportIndex::Func(func) => Extern::Func(Func { store, record: self.func_ref(func) }),
            ExportIndex::Table(table) => Extern::Table(self.table(table)),
            ExportIndex::Memory(memory) => Extern::Memory(self.memory(memory)),
            ExportIndex::Global(global) => {
                let ty = self.module.info().globals[global].map(|ty| self.module.type_id(ty));
                Extern::Global(Global { store, cell: self.global(global), ty })
            }
            ExportIndex::Tag(tag) => {
                // SAFETY: tag records live as long as the store, hence as long as the instance.
                let record = unsafe { &*self.tag(tag) };
                Extern::Tag(Tag { store, index: record.index })
            }
        }
    }

    /// Marks the objects that globals and segments defined here refer to.
    pub(super) fn mark(&self, marker: &mut Marker<'_>) {
        let info = self.module.info();
        for (segment, elements) in info.elements.values().zip(&self.elems) {
            if let (Elements::Values(values), false) = (elements, segment.ty.heap.is_func()) {
                values.iter().for_each(|&value| marker.reference(value as u32));
            }
        }
        let defined = info.globals.values().skip(info.imported.globals as usize);
        for (n, ty) in defined.enumerate() {
            if let ValType::Ref(ty) = ty.content
                && !ty.heap.is_func()
            {
                // SAFETY: the cell is the context's own; compiled code waits meanwhile.
                let GlobalCell([a, b, c, d, ..]) =
                    unsafe { self.ctx.defined_global(n as u32).read() };
                marker.reference(u32::from_le_bytes([a, b, c, d]));
            }
        }
    }

    /// Tells compiled code where the table of supertypes lies.
    pub(super) fn set_supertypes(&mut self, table: *const Row) {
        // SAFETY: the header is the context's own; compiled code, which reads it anew after each
        // call, waits meanwhile.
        unsafe { (*self.ctx.header().as_ptr()).supertypes = table };
    }

    pub(super) fn set_stack_limit(&mut self, limit: usize) {
        // SAFETY: the header is the context's own and no compiled code runs.
        unsafe { (*self.ctx.header().as_ptr()).stack_limit = limit };
    }

    /// The bytes of a data segment: none once it is dropped.
    pub(super) fn data(&self, index: DataIndex) -> &[u8] {
        // Static segments may be missing from the description.
        let Some(segment) = self.module.info().data.get(index) else { return &[] };
        if self.dropped_data[index.index()] {
            return &[];
        }
        self.module.data(segment.offset..segment.offset + segment.len)
    }

    pub(super) fn drop_data(&mut self, index: DataIndex) {
        if let Some(dropped) = self.dropped_data.get_mut(index.index()) {
            *dropped = true;
        }
    }

    pub(super) fn drop_elem(&mut self, index: ElemIndex) {
        self.elems[index.index()] = Elements::none();
    }

    /// How many elements a segment has: none once it is dropped.
    pub(super) fn element_count(&self, index: ElemIndex) -> u32 {
        match &self.elems[index.index()] {
            Elements::Functions => self.element_funcs(index).len() as u32,
            Elements::Values(values) => values.len() as u32,
        }
    }

    /// The functions of a segment that is given by them.
    fn element_funcs(&self, index: ElemIndex) -> &[FuncIndex] {
        match &self.module.info().elements[index].items {
            ElementItems::Functions(funcs) => funcs,
            ElementItems::Expressions(_) => &[],
        }
    }

    /// Keeps the values of a segment that is given by expressions.
    pub(super) fn set_elements(&mut self, index: ElemIndex, values: Box<[u64]>) {
        self.elems[index.index()] = Elements::Values(values);
    }

    /// The raw elements `src..src + len` of a segment, or `None` when out of bounds.
    pub(super) fn elements(
        &self,
        index: ElemIndex,
        src: u32,
        len: u32,
    ) -> Option<impl ExactSizeIterator<Item = u64>> {
        let range = usize_range(u64::from(src), u64::from(len));
        if range.end > self.element_count(index) as usize {
            return None;
        }
        let funcs = self.element_funcs(index);
        Some(range.map(move |n| match &self.elems[index.index()] {
            Elements::Functions => self.raw_func(funcs[n]) as u64,
            Elements::Values(values) => values[n],
        }))
    }

    fn raw_func(&self, func: FuncIndex) -> u128 {
        self.func_ref(func).as_ptr().expose_provenance() as u128
    }

    /// The value of a constant expression that makes no objects, as compiled code holds it.
    pub(super) fn evaluate(&self, expr: &ConstExpr) -> u128 {
        // The usual form needs no stack.
        if let [op] = expr.ops[..] {
            return self.operand(op);
        }
        let mut stack = SmallVec::new();
        for &op in &expr.ops {
            let value = self.apply(op, &mut stack);
            stack.push(value);
        }
        stack.pop().unwrap_or_default()
    }

    /// Takes an operator's operands from the stack and gives its result. `check::module` saw that
    /// there are as many.
    pub(super) fn apply(&self, op: ConstOp, stack: &mut SmallVec<[u128; 4]>) -> u128 {
        if let ConstOp::RefI31 = op {
            let value = stack.pop().unwrap_or_default() as u32;
            return u128::from(value << 1 | 1);
        }
        match binary(op) {
            Some(apply) => {
                let (right, left) = (stack.pop(), stack.pop());
                apply(left.unwrap_or_default(), right.unwrap_or_default())
            }
            None => self.operand(op),
        }
    }

    fn operand(&self, op: ConstOp) -> u128 {
        match op {
            ConstOp::I32Const(value) => u128::from(value as u32),
            ConstOp::I64Const(value) => u128::from(value as u64),
            ConstOp::F32Const(bits) => u128::from(bits),
            ConstOp::F64Const(bits) => u128::from(bits),
            ConstOp::V128Const(value) => value,
            // SAFETY: globals live as long as their store; this one was initialised before, as
            // expressions read imported globals and those defined earlier only.
            ConstOp::GlobalGet(global) => unsafe {
                u128::from_le_bytes(self.global(global).as_ref().0)
            },
            ConstOp::RefFunc(func) => self.raw_func(func),
            // Operators with operands are dealt with by `apply`, those that make objects by the store.
            _ => 0,
        }
    }
}

fn binary(op: ConstOp) -> Option<fn(u128, u128) -> u128> {
    fn i32(op: fn(u32, u32) -> u32, left: u128, right: u128) -> u128 {
        u128::from(op(left as u32, right as u32))
    }
    fn i64(op: fn(u64, u64) -> u64, left: u128, right: u128) -> u128 {
        u128::from(op(left as u64, right as u64))
    }
    Some(match op {
        ConstOp::I32Add => |a, b| i32(u32::wrapping_add, a, b),
        ConstOp::I32Sub => |a, b| i32(u32::wrapping_sub, a, b),
        ConstOp::I32Mul => |a, b| i32(u32::wrapping_mul, a, b),
        ConstOp::I64Add => |a, b| i64(u64::wrapping_add, a, b),
        ConstOp::I64Sub => |a, b| i64(u64::wrapping_sub, a, b),
        ConstOp::I64Mul => |a, b| i64(u64::wrapping_mul, a, b),
        _ => return None,
    })
}
