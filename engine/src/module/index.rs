//! Typed indices of the module's index spaces, so that none is mistaken for another.

use cranelift_entity::entity_impl;
use serde::{Deserialize, Serialize};

macro_rules! indices {
    ($($(#[$doc:meta])* $name:ident $display:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(u32);
        entity_impl!($name, $display);
    )*};
}

indices! {
    /// A function, imported ones first.
    FuncIndex "func";
    /// A function that the module defines; the n-th body of the code section.
    DefinedFuncIndex "defined_func";
    /// A type of the type section.
    TypeIndex "type";
    /// A distinct function signature; equal types share one.
    SigIndex "sig";
    /// A table, imported ones first.
    TableIndex "table";
    /// A linear memory, imported ones first.
    MemoryIndex "memory";
    /// A global, imported ones first.
    GlobalIndex "global";
    /// A tag, imported ones first.
    TagIndex "tag";
    /// An element segment.
    ElemIndex "elem";
    /// A data segment.
    DataIndex "data";
}
