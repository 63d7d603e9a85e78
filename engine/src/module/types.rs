//! Types of values, functions, structures, arrays and everything importable, in the engine's own
//! words.
//!
//! They are serialised into a code image, so a cached module links and runs without its wasm bytes.
//!
//! A type may name others that are defined. Within a module these are entries of its type section,
//! [`TypeIndex`], which is what the parameter `C` stands for if nothing else is said. The runtime
//! uses the same types with numbers that it gives out for all modules together, so that equal types
//! of different modules are equal.

mod objects;
mod words;

pub use objects::{ArrayLayout, ObjectLayout, StructLayout};

use serde::{Deserialize, Serialize};

use super::index::TypeIndex;

/// A value type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum ValType<C = TypeIndex> {
    I32,
    I64,
    F32,
    F64,
    V128,
    Ref(RefType<C>),
}

/// A reference type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RefType<C = TypeIndex> {
    /// Whether null is a value of it.
    pub nullable: bool,
    /// What it refers to.
    pub heap: HeapType<C>,
}

/// What a reference refers to: core specification, "Heap Types".
///
/// A defined type stands with its kind, so that nobody has to look it up to know how references to
/// it are represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum HeapType<C = TypeIndex> {
    Func,
    NoFunc,
    Extern,
    NoExtern,
    Any,
    Eq,
    I31,
    Struct,
    Array,
    None,
    Exn,
    NoExn,
    /// A function type that is defined.
    ConcreteFunc(C),
    /// A structure type that is defined.
    ConcreteStruct(C),
    /// An array type that is defined.
    ConcreteArray(C),
}

/// The kinds of types that can be defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum TypeKind {
    Func,
    Struct,
    Array,
}

/// The families of heap types; no type of one is a subtype of one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named after their top types")]
pub enum Hierarchy {
    Func,
    Extern,
    Any,
    Exn,
}

/// How a value is held in registers, memory and the array form of trampolines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum MachineType {
    I32,
    I64,
    F32,
    F64,
    V128,
}

/// A function type with every value as the machine holds it. Functions with equal signatures are
/// called in the same way and share their trampolines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature {
    /// Parameters in order, without the context.
    pub params: Vec<MachineType>,
    /// Results in order.
    pub results: Vec<MachineType>,
}

/// A function type: core specification, "Function Types".
///
/// ```
/// use coracle_engine::runtime::{FuncType, ValType};
/// let ty = FuncType::new([ValType::I32, ValType::FUNCREF], [ValType::V128]);
/// assert_eq!(ty.to_string(), "(i32, funcref) -> (v128)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FuncType<C = TypeIndex> {
    /// Parameters in order.
    pub params: Vec<ValType<C>>,
    /// Results in order.
    pub results: Vec<ValType<C>>,
}

/// A structure type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StructType<C = TypeIndex> {
    /// Fields in order.
    pub fields: Vec<FieldType<C>>,
}

/// An array type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArrayType<C = TypeIndex> {
    /// Type of each element.
    pub element: FieldType<C>,
}

/// Type of a structure's field or an array's element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FieldType<C = TypeIndex> {
    /// What is stored.
    pub storage: StorageType<C>,
    /// Whether it can be set.
    pub mutable: bool,
}

/// What is stored in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum StorageType<C = TypeIndex> {
    I8,
    I16,
    Val(ValType<C>),
}

/// What a defined type is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum CompositeType<C = TypeIndex> {
    Func(FuncType<C>),
    Struct(StructType<C>),
    Array(ArrayType<C>),
}

/// A defined type: core specification, "Recursive Types".
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubType<C = TypeIndex> {
    /// Whether no other type may declare itself a subtype of it.
    pub is_final: bool,
    /// The type that it declares itself a subtype of.
    pub supertype: Option<C>,
    /// What it is made of.
    pub composite: CompositeType<C>,
}

/// A table's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableType<C = TypeIndex> {
    /// Element type.
    pub element: RefType<C>,
    /// Index type is i64 instead of i32.
    pub table64: bool,
    /// Elements at the start.
    pub min: u64,
    /// Most elements it may grow to.
    pub max: Option<u64>,
}

/// A linear memory's type: core specification, "Memory Types". Sizes are in pages of
/// `1 << page_size_log2` bytes.
///
/// ```
/// use coracle_engine::module::types::MemoryType;
/// let shared = MemoryType { shared: true, ..MemoryType::new(1, Some(16)) };
/// assert_eq!((shared.page_size_log2, shared.memory64), (16, false));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemoryType {
    /// Index type is i64 instead of i32.
    pub memory64: bool,
    /// Shared between threads.
    pub shared: bool,
    /// Pages at the start.
    pub min: u64,
    /// Most pages it may grow to.
    pub max: Option<u64>,
    /// Binary logarithm of the page size: 16 unless the custom-page-sizes proposal says otherwise.
    pub page_size_log2: u8,
}

/// A global's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GlobalType<C = TypeIndex> {
    /// Type of the value.
    pub content: ValType<C>,
    /// Whether it can be set.
    pub mutable: bool,
}

impl<C> ValType<C> {
    /// `funcref`, nullable.
    pub const FUNCREF: ValType<C> = ValType::Ref(RefType { nullable: true, heap: HeapType::Func });
    /// `externref`, nullable.
    pub const EXTERNREF: ValType<C> =
        ValType::Ref(RefType { nullable: true, heap: HeapType::Extern });

    /// How values of it are held: function references as pointers, all others as 32 bits.
    #[must_use]
    pub fn machine(&self) -> MachineType {
        match self {
            ValType::I32 => MachineType::I32,
            ValType::I64 => MachineType::I64,
            ValType::F32 => MachineType::F32,
            ValType::F64 => MachineType::F64,
            ValType::V128 => MachineType::V128,
            ValType::Ref(ty) => ty.heap.machine(),
        }
    }

    /// The defined type that it is a reference to, if it is one.
    #[must_use]
    pub fn as_defined(self) -> Option<C> {
        match self {
            ValType::Ref(ty) => ty.heap.as_concrete().map(|(_, ty)| ty),
            _ => None,
        }
    }

    /// Whether values are pointers to function reference records.
    #[must_use]
    pub fn is_func_ref(&self) -> bool {
        matches!(self, ValType::Ref(ty) if ty.heap.is_func())
    }

    /// The same with every defined type named in another way.
    pub fn map<D>(self, f: impl FnMut(C) -> D) -> ValType<D> {
        match self {
            ValType::I32 => ValType::I32,
            ValType::I64 => ValType::I64,
            ValType::F32 => ValType::F32,
            ValType::F64 => ValType::F64,
            ValType::V128 => ValType::V128,
            ValType::Ref(ty) => ValType::Ref(ty.map(f)),
        }
    }
}

impl<C> RefType<C> {
    /// The same with every defined type named in another way.
    pub fn map<D>(self, f: impl FnMut(C) -> D) -> RefType<D> {
        RefType { nullable: self.nullable, heap: self.heap.map(f) }
    }
}

impl<C> HeapType<C> {
    /// A reference to a defined type of this kind.
    pub fn concrete(kind: TypeKind, ty: C) -> HeapType<C> {
        match kind {
            TypeKind::Func => HeapType::ConcreteFunc(ty),
            TypeKind::Struct => HeapType::ConcreteStruct(ty),
            TypeKind::Array => HeapType::ConcreteArray(ty),
        }
    }

    /// The defined type with its kind, if it is one.
    #[must_use]
    pub fn as_concrete(self) -> Option<(TypeKind, C)> {
        match self {
            HeapType::ConcreteFunc(ty) => Some((TypeKind::Func, ty)),
            HeapType::ConcreteStruct(ty) => Some((TypeKind::Struct, ty)),
            HeapType::ConcreteArray(ty) => Some((TypeKind::Array, ty)),
            _ => None,
        }
    }

    /// The family it belongs to.
    #[must_use]
    pub fn hierarchy(&self) -> Hierarchy {
        match self {
            HeapType::Func | HeapType::NoFunc | HeapType::ConcreteFunc(_) => Hierarchy::Func,
            HeapType::Extern | HeapType::NoExtern => Hierarchy::Extern,
            HeapType::Exn | HeapType::NoExn => Hierarchy::Exn,
            HeapType::Any
            | HeapType::Eq
            | HeapType::I31
            | HeapType::Struct
            | HeapType::Array
            | HeapType::None
            | HeapType::ConcreteStruct(_)
            | HeapType::ConcreteArray(_) => Hierarchy::Any,
        }
    }

    /// Whether values are function reference records (pointers) and not 32 bits wide.
    #[must_use]
    pub fn is_func(&self) -> bool {
        self.hierarchy() == Hierarchy::Func
    }

    /// How references to it are held.
    #[must_use]
    pub fn machine(&self) -> MachineType {
        if self.is_func() { MachineType::I64 } else { MachineType::I32 }
    }

    /// The same with every defined type named in another way.
    pub fn map<D>(self, mut f: impl FnMut(C) -> D) -> HeapType<D> {
        match self {
            HeapType::Func => HeapType::Func,
            HeapType::NoFunc => HeapType::NoFunc,
            HeapType::Extern => HeapType::Extern,
            HeapType::NoExtern => HeapType::NoExtern,
            HeapType::Any => HeapType::Any,
            HeapType::Eq => HeapType::Eq,
            HeapType::I31 => HeapType::I31,
            HeapType::Struct => HeapType::Struct,
            HeapType::Array => HeapType::Array,
            HeapType::None => HeapType::None,
            HeapType::Exn => HeapType::Exn,
            HeapType::NoExn => HeapType::NoExn,
            HeapType::ConcreteFunc(ty) => HeapType::ConcreteFunc(f(ty)),
            HeapType::ConcreteStruct(ty) => HeapType::ConcreteStruct(f(ty)),
            HeapType::ConcreteArray(ty) => HeapType::ConcreteArray(f(ty)),
        }
    }
}

impl MemoryType {
    /// Binary logarithm of the usual page size: pages of 64 KiB.
    pub const PAGE_SIZE_LOG2: u8 = 16;

    /// The usual type: 32-bit indices, pages of 64 KiB, not shared. Sizes are in pages.
    #[must_use]
    pub fn new(min: u64, max: Option<u64>) -> MemoryType {
        let page_size_log2 = MemoryType::PAGE_SIZE_LOG2;
        MemoryType { memory64: false, shared: false, min, max, page_size_log2 }
    }
}

impl<C> Default for FuncType<C> {
    fn default() -> FuncType<C> {
        FuncType { params: Vec::new(), results: Vec::new() }
    }
}

impl<C> FuncType<C> {
    /// The type with these parameters and results.
    #[must_use]
    pub fn new(
        params: impl Into<Vec<ValType<C>>>,
        results: impl Into<Vec<ValType<C>>>,
    ) -> FuncType<C> {
        FuncType { params: params.into(), results: results.into() }
    }

    /// How its functions are called.
    #[must_use]
    pub fn signature(&self) -> Signature {
        Signature {
            params: self.params.iter().map(ValType::machine).collect(),
            results: self.results.iter().map(ValType::machine).collect(),
        }
    }

    /// Whether its functions are called in this way.
    #[must_use]
    pub fn has_signature(&self, signature: &Signature) -> bool {
        self.params.iter().map(ValType::machine).eq(signature.params.iter().copied())
            && self.results.iter().map(ValType::machine).eq(signature.results.iter().copied())
    }
}

impl<C: Copy> FuncType<C> {
    /// The same with every defined type named in another way.
    pub fn map<D>(&self, mut f: impl FnMut(C) -> D) -> FuncType<D> {
        FuncType {
            params: self.params.iter().map(|ty| ty.map(&mut f)).collect(),
            results: self.results.iter().map(|ty| ty.map(&mut f)).collect(),
        }
    }
}

impl<C> FieldType<C> {
    /// The same with every defined type named in another way.
    pub fn map<D>(self, f: impl FnMut(C) -> D) -> FieldType<D> {
        let storage = match self.storage {
            StorageType::I8 => StorageType::I8,
            StorageType::I16 => StorageType::I16,
            StorageType::Val(ty) => StorageType::Val(ty.map(f)),
        };
        FieldType { storage, mutable: self.mutable }
    }
}

impl<C> SubType<C> {
    /// The usual form of a function type: final and without supertype.
    #[must_use]
    pub fn plain_func(ty: FuncType<C>) -> SubType<C> {
        SubType { is_final: true, supertype: None, composite: CompositeType::Func(ty) }
    }

    /// What it defines.
    #[must_use]
    pub fn kind(&self) -> TypeKind {
        match self.composite {
            CompositeType::Func(_) => TypeKind::Func,
            CompositeType::Struct(_) => TypeKind::Struct,
            CompositeType::Array(_) => TypeKind::Array,
        }
    }

    /// The function type, if it is one.
    #[must_use]
    pub fn as_func(&self) -> Option<&FuncType<C>> {
        match &self.composite {
            CompositeType::Func(ty) => Some(ty),
            _ => None,
        }
    }

    /// The structure type, if it is one.
    #[must_use]
    pub fn as_struct(&self) -> Option<&StructType<C>> {
        match &self.composite {
            CompositeType::Struct(ty) => Some(ty),
            _ => None,
        }
    }

    /// The array type, if it is one.
    #[must_use]
    pub fn as_array(&self) -> Option<&ArrayType<C>> {
        match &self.composite {
            CompositeType::Array(ty) => Some(ty),
            _ => None,
        }
    }
}

impl<C: Copy> SubType<C> {
    /// The same with every defined type named in another way.
    pub fn map<D>(&self, mut f: impl FnMut(C) -> D) -> SubType<D> {
        SubType {
            is_final: self.is_final,
            supertype: self.supertype.map(&mut f),
            composite: match &self.composite {
                CompositeType::Func(ty) => CompositeType::Func(ty.map(f)),
                CompositeType::Struct(ty) => CompositeType::Struct(StructType {
                    fields: ty.fields.iter().map(|field| field.map(&mut f)).collect(),
                }),
                CompositeType::Array(ty) => {
                    CompositeType::Array(ArrayType { element: ty.element.map(f) })
                }
            },
        }
    }

    /// Calls `f` with every value type in it.
    pub fn for_each_value(&self, mut f: impl FnMut(ValType<C>)) {
        let fields = match &self.composite {
            CompositeType::Func(ty) => {
                return ty.params.iter().chain(&ty.results).for_each(|&ty| f(ty));
            }
            CompositeType::Struct(ty) => &ty.fields[..],
            CompositeType::Array(ty) => std::slice::from_ref(&ty.element),
        };
        for field in fields {
            if let StorageType::Val(ty) = field.storage {
                f(ty);
            }
        }
    }
}

impl<C> TableType<C> {
    /// The same with every defined type named in another way.
    pub fn map<D>(self, f: impl FnMut(C) -> D) -> TableType<D> {
        let TableType { element, table64, min, max } = self;
        TableType { element: element.map(f), table64, min, max }
    }
}

impl<C> GlobalType<C> {
    /// The same with every defined type named in another way.
    pub fn map<D>(self, f: impl FnMut(C) -> D) -> GlobalType<D> {
        GlobalType { content: self.content.map(f), mutable: self.mutable }
    }
}
