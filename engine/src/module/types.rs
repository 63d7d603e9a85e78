//! Types of values, functions and everything importable, in the engine's own words.
//!
//! They are serialised into a code image, so a cached module links and runs without its wasm bytes.

use serde::{Deserialize, Serialize};

/// A value type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum ValType {
    I32,
    I64,
    F32,
    F64,
    V128,
    Ref(RefType),
}

impl ValType {
    /// `funcref`, nullable.
    pub const FUNCREF: ValType = ValType::Ref(RefType { nullable: true, heap: HeapType::Func });
    /// `externref`, nullable.
    pub const EXTERNREF: ValType = ValType::Ref(RefType { nullable: true, heap: HeapType::Extern });
}

/// A reference type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RefType {
    /// Whether null is a value of it.
    pub nullable: bool,
    /// What it refers to.
    pub heap: HeapType,
}

/// What a reference refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum HeapType {
    Func,
    Extern,
}

impl HeapType {
    /// Whether values are function reference records (pointers) and not handles (i32).
    #[must_use]
    pub fn is_func(self) -> bool {
        matches!(self, HeapType::Func)
    }
}

/// A function's signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FuncType {
    /// Parameters in order.
    pub params: Vec<ValType>,
    /// Results in order.
    pub results: Vec<ValType>,
}

/// A table's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableType {
    /// Element type.
    pub element: RefType,
    /// Index type is i64 instead of i32.
    pub table64: bool,
    /// Elements at the start.
    pub min: u64,
    /// Most elements it may grow to.
    pub max: Option<u64>,
}

/// A linear memory's type. Sizes are in pages of `1 << page_size_log2` bytes.
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
pub struct GlobalType {
    /// Type of the value.
    pub content: ValType,
    /// Whether it can be set.
    pub mutable: bool,
}
