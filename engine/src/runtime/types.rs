//! Types as the host sees them: the module's, with the engine's numbers for defined types.

use super::engine::Engine;
use super::instance::Extern;
use super::registry::TypeId;
use super::store::StoreInner;
use crate::module::types;

pub use crate::module::types::MemoryType;

/// A value type; see [`types::ValType`].
pub type ValType = types::ValType<TypeId>;
/// A reference type; see [`types::RefType`].
pub type RefType = types::RefType<TypeId>;
/// What a reference refers to; see [`types::HeapType`].
pub type HeapType = types::HeapType<TypeId>;
/// A function type; see [`types::FuncType`].
pub type FuncType = types::FuncType<TypeId>;
/// A defined type; see [`types::SubType`].
pub type SubType = types::SubType<TypeId>;
/// What is stored in a field or element; see [`types::StorageType`].
pub type StorageType = types::StorageType<TypeId>;
/// Type of a field or element; see [`types::FieldType`].
pub type FieldType = types::FieldType<TypeId>;
/// A table's type; see [`types::TableType`].
pub type TableType = types::TableType<TypeId>;
/// A global's type; see [`types::GlobalType`].
pub type GlobalType = types::GlobalType<TypeId>;

/// Subtyping: core specification, "Matching".
impl Engine {
    /// Whether every value of type `ty` is one of type `of`.
    ///
    /// # Panics
    /// May panic when a type names a defined type of another engine.
    #[must_use]
    pub fn is_subtype(&self, ty: ValType, of: ValType) -> bool {
        match (ty, of) {
            (ValType::Ref(ty), ValType::Ref(of)) => self.is_ref_subtype(ty, of),
            _ => ty == of,
        }
    }

    pub(super) fn is_ref_subtype(&self, ty: RefType, of: RefType) -> bool {
        (of.nullable || !ty.nullable) && self.is_heap_subtype(ty.heap, of.heap)
    }

    pub(super) fn is_heap_subtype(&self, ty: HeapType, of: HeapType) -> bool {
        use types::HeapType as H;
        if ty == of {
            return true;
        }
        if ty.hierarchy() != of.hierarchy() {
            return false;
        }
        match (ty, of) {
            // The tops and bottoms of the hierarchies.
            (_, H::Func | H::Extern | H::Any | H::Exn)
            | (H::NoFunc | H::NoExtern | H::None | H::NoExn, _) => true,
            (H::I31 | H::Struct | H::Array | H::ConcreteStruct(_) | H::ConcreteArray(_), H::Eq)
            | (H::ConcreteStruct(_), H::Struct)
            | (H::ConcreteArray(_), H::Array) => true,
            _ => match (ty.as_concrete(), of.as_concrete()) {
                (Some((_, ty)), Some((_, of))) => self.types().is_subtype(ty, of),
                _ => false,
            },
        }
    }
}

/// The type of something that can be imported or exported: core specification, "External Types".
///
/// [`Engine::defined_type`] tells what the number of a function's or tag's type stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum ExternType {
    Func(TypeId),
    Table(TableType),
    Memory(MemoryType),
    Global(GlobalType),
    /// A tag with its function type, whose parameters are what exceptions carry.
    Tag(TypeId),
}

impl ExternType {
    /// What is found: sizes of tables and memories are those of now.
    pub(super) fn of(store: &StoreInner, item: Extern) -> ExternType {
        match item {
            Extern::Func(func) => ExternType::Func(func.type_id(store)),
            Extern::Table(table) => ExternType::Table(store.table(table).current_type()),
            Extern::Memory(memory) => ExternType::Memory(store.memory(memory).current_type()),
            Extern::Global(global) => ExternType::Global(global.ty),
            Extern::Tag(tag) => ExternType::Tag(tag.record(store).type_id),
        }
    }

    /// Whether something of this type can be imported where `wanted` is: core specification,
    /// "Matching", "External Types".
    ///
    /// # Panics
    /// May panic when a type names a defined type of another engine than `engine`.
    #[must_use]
    pub fn matches(&self, wanted: &ExternType, engine: &Engine) -> bool {
        match (self, wanted) {
            (&ExternType::Func(found), &ExternType::Func(wanted)) => {
                engine.types().is_subtype(found, wanted)
            }
            (ExternType::Table(found), ExternType::Table(wanted)) => {
                found.element == wanted.element
                    && found.table64 == wanted.table64
                    && within((found.min, found.max), (wanted.min, wanted.max))
            }
            (ExternType::Memory(found), ExternType::Memory(wanted)) => {
                found.memory64 == wanted.memory64
                    && found.shared == wanted.shared
                    && found.page_size_log2 == wanted.page_size_log2
                    && within((found.min, found.max), (wanted.min, wanted.max))
            }
            (ExternType::Global(found), ExternType::Global(wanted)) => {
                // What can be set through either name must fit both.
                let content = match found.mutable {
                    true => found.content == wanted.content,
                    false => engine.is_subtype(found.content, wanted.content),
                };
                found.mutable == wanted.mutable && content
            }
            // Whoever throws and whoever catches must agree on the type.
            (ExternType::Tag(found), ExternType::Tag(wanted)) => found == wanted,
            _ => false,
        }
    }

    /// The type in words, for messages.
    ///
    /// # Panics
    /// May panic when the type names a defined type of another engine than `engine`.
    #[must_use]
    pub fn describe(&self, engine: &Engine) -> String {
        match self {
            ExternType::Func(id) => describe_func(*id, engine),
            ExternType::Table(ty) => {
                format!("table of {} with {}", ty.element, limits(ty.min, ty.max, "elements"))
            }
            ExternType::Memory(ty) => format!("memory with {}", limits(ty.min, ty.max, "pages")),
            ExternType::Global(ty) => ty.to_string(),
            ExternType::Tag(id) => format!("tag of {}", describe_func(*id, engine)),
        }
    }
}

/// Function types that differ in more than parameters and results are told apart by their number.
fn describe_func(id: TypeId, engine: &Engine) -> String {
    let ty = engine.func_type(id);
    if engine.types().is_plain(id) {
        format!("function {ty}")
    } else {
        format!("function {ty} ({id})")
    }
}

fn limits(min: u64, max: Option<u64>, unit: &str) -> String {
    match max {
        Some(max) => format!("{min} to {max} {unit}"),
        None => format!("at least {min} {unit}"),
    }
}

/// Whether found limits lie within wanted ones.
fn within(found: (u64, Option<u64>), wanted: (u64, Option<u64>)) -> bool {
    let max = match (found.1, wanted.1) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(found), Some(wanted)) => found <= wanted,
    };
    found.0 >= wanted.0 && max
}
