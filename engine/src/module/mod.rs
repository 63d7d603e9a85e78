//! Bytes to a validated description: everything about a module but its code.
//!
//! [`decode`] validates with wasmparser against an explicit feature list and collects
//! [`ModuleInfo`], which compilation and instantiation share. It is plain data without borrowed
//! bytes and is stored inside a code image.

pub mod decode;
pub mod index;
pub mod limits;
pub mod types;

use cranelift_entity::{EntityRef, PrimaryMap};
use serde::{Deserialize, Serialize};

use crate::abi::layout::{Layout, Shape};
use index::{
    DataIndex, DefinedFuncIndex, ElemIndex, FuncIndex, GlobalIndex, MemoryIndex, SigIndex,
    TableIndex, TagIndex, TypeIndex,
};
use types::{
    CompositeType, FuncType, GlobalType, MemoryType, RefType, Signature, SubType, TableType,
};

/// The export that prepares a reactor of WASI, before anything else in it is called.
pub const INITIALIZE: &str = "_initialize";
/// The export that initialises a program before its snapshot is taken, by the convention of Wizer.
pub const WIZER_INITIALIZE: &str = "wizer.initialize";

/// A validated module without its code.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// The types of the type section.
    pub types: PrimaryMap<TypeIndex, SubType>,
    /// How many consecutive types each recursion group has; together as many as there are types.
    pub rec_groups: Vec<u32>,
    /// The distinct signatures of the function types, in order of first use in the type section.
    pub signatures: PrimaryMap<SigIndex, Signature>,
    /// The signature of each type that is a function type.
    pub type_signatures: PrimaryMap<TypeIndex, Option<SigIndex>>,
    /// Imports in order.
    pub imports: Vec<Import>,
    /// Exports in order; names are unique.
    pub exports: Vec<Export>,
    /// Functions, imported ones first.
    pub functions: PrimaryMap<FuncIndex, Function>,
    /// Tables, imported ones first.
    pub tables: PrimaryMap<TableIndex, TableType>,
    /// Memories, imported ones first.
    pub memories: PrimaryMap<MemoryIndex, MemoryType>,
    /// Globals, imported ones first.
    pub globals: PrimaryMap<GlobalIndex, GlobalType>,
    /// The function type of each tag, without results; imported ones first.
    pub tags: PrimaryMap<TagIndex, TypeIndex>,
    /// How many of each index space are imports.
    pub imported: ImportCounts,
    /// Initial values of the defined globals, in order.
    pub global_inits: Vec<ConstExpr>,
    /// Initial element values of the defined tables, in order; `None` is null.
    pub table_inits: Vec<Option<ConstExpr>>,
    /// Element segments.
    pub elements: PrimaryMap<ElemIndex, ElementSegment>,
    /// Data segments; their bytes are in the image's data section. An image leaves out the static
    /// ones behind the last other one.
    pub data: PrimaryMap<DataIndex, DataSegment>,
    /// The start function.
    pub start: Option<FuncIndex>,
    /// Number of functions that may become references.
    pub escaped_funcs: u32,
    /// Initial contents of defined memories that could be laid out when compiling. Active segments
    /// covered by it have the mode [`DataMode::Static`].
    pub memory_images: Vec<MemoryImage>,
    /// Whether memories and globals begin as its initialisation has left them: see
    /// [`snapshot`](crate::snapshot).
    pub initialized: bool,
    /// Whether its code uses the heap of objects: its contexts need the heap's address.
    pub uses_objects: bool,
    /// The module's name from its name section.
    pub name: Option<String>,
}

/// How many entries of each index space are imports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ImportCounts {
    pub functions: u32,
    pub tables: u32,
    pub memories: u32,
    pub globals: u32,
    pub tags: u32,
}

/// A function of the index space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its type.
    pub ty: TypeIndex,
    /// How it is called: the signature of its type.
    pub signature: SigIndex,
    /// Its place among the context's function reference records, if it may become a reference:
    /// exported, in an element segment, or named by `ref.func`.
    pub func_ref: Option<u32>,
}

/// An import. Its index within its kind's space is its rank among imports of that kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub struct Import {
    pub module: String,
    pub name: String,
    pub ty: ImportType,
}

/// What is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum ImportType {
    Func(TypeIndex),
    Table(TableType),
    Memory(MemoryType),
    Global(GlobalType),
    Tag(TypeIndex),
}

/// An export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub struct Export {
    pub name: String,
    pub index: ExportIndex,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum ExportIndex {
    Func(FuncIndex),
    Table(TableIndex),
    Memory(MemoryIndex),
    Global(GlobalIndex),
    Tag(TagIndex),
}

/// A constant expression as a little stack program; validated, so it leaves exactly one value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConstExpr {
    /// Operators in order.
    pub ops: Vec<ConstOp>,
}

/// An operator of a constant expression. Floats are bit patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum ConstOp {
    I32Const(i32),
    I64Const(i64),
    F32Const(u32),
    F64Const(u64),
    V128Const(u128),
    GlobalGet(GlobalIndex),
    RefNull,
    RefFunc(FuncIndex),
    I32Add,
    I32Sub,
    I32Mul,
    I64Add,
    I64Sub,
    I64Mul,
    RefI31,
    StructNew(TypeIndex),
    StructNewDefault(TypeIndex),
    ArrayNew(TypeIndex),
    ArrayNewDefault(TypeIndex),
    ArrayNewFixed(TypeIndex, u32),
}

impl ConstOp {
    /// Whether it makes an object.
    #[must_use]
    pub fn allocates(self) -> bool {
        matches!(
            self,
            ConstOp::StructNew(_)
                | ConstOp::StructNewDefault(_)
                | ConstOp::ArrayNew(_)
                | ConstOp::ArrayNewDefault(_)
                | ConstOp::ArrayNewFixed(..)
        )
    }
}

impl ConstExpr {
    /// Whether it makes objects, so that each evaluation gives another value.
    #[must_use]
    pub fn allocates(&self) -> bool {
        self.ops.iter().any(|op| op.allocates())
    }
}

/// An element segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ElementSegment {
    /// When it is written.
    pub mode: ElementMode,
    /// Type of its elements.
    pub ty: RefType,
    /// Its elements.
    pub items: ElementItems,
}

/// When an element segment is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum ElementMode {
    Passive,
    Declared,
    Active { table: TableIndex, offset: ConstExpr },
}

/// Elements of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ElementItems {
    /// Functions by index: the usual form.
    Functions(Vec<FuncIndex>),
    /// Any constant expressions.
    Expressions(Vec<ConstExpr>),
}

/// A data segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSegment {
    /// When it is written.
    pub mode: DataMode,
    /// Where its bytes begin in the image's data section; 0 for `Static` ones, which have none.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// When a data segment is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum DataMode {
    Passive,
    Active {
        memory: MemoryIndex,
        offset: ConstExpr,
    },
    /// Active, already part of a [`MemoryImage`]: dropped from the start, as active ones are.
    Static,
}

/// A run of pages of a defined memory's initial contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryImage {
    /// The memory.
    pub memory: MemoryIndex,
    /// First byte in the memory; a multiple of 4096.
    pub guest_offset: u64,
    /// First byte in the image's memory section; a multiple of 4096.
    pub image_offset: u64,
    /// Bytes; a multiple of 4096, within the memory's minimum size.
    pub len: u64,
}

impl ModuleInfo {
    /// The index space number of a defined function.
    #[must_use]
    pub fn func_index(&self, defined: DefinedFuncIndex) -> FuncIndex {
        FuncIndex::new(self.imported.functions as usize + defined.index())
    }

    /// The defined function behind an index, or `None` for an import.
    #[must_use]
    pub fn defined_func(&self, func: FuncIndex) -> Option<DefinedFuncIndex> {
        func.index().checked_sub(self.imported.functions as usize).map(DefinedFuncIndex::new)
    }

    /// Number of defined functions.
    #[must_use]
    pub fn defined_funcs(&self) -> usize {
        self.functions.len() - self.imported.functions as usize
    }

    /// The type of a function.
    #[must_use]
    pub fn func_type(&self, func: FuncIndex) -> &FuncType {
        self.func_type_at(self.functions[func].ty)
    }

    /// An entry of the type section that is a function type.
    ///
    /// # Panics
    /// When it is of another kind. Validation sees to that wherever a function type must stand, and
    /// the check of an image where the runtime asks.
    #[must_use]
    pub fn func_type_at(&self, ty: TypeIndex) -> &FuncType {
        match &self.types[ty].composite {
            CompositeType::Func(ty) => ty,
            _ => unreachable!("{ty} is no function type"),
        }
    }

    /// How functions of a type are called.
    ///
    /// # Panics
    /// As [`ModuleInfo::func_type_at`].
    #[must_use]
    pub fn signature_at(&self, ty: TypeIndex) -> SigIndex {
        match self.type_signatures[ty] {
            Some(signature) => signature,
            None => unreachable!("{ty} is no function type"),
        }
    }

    /// Whether a type of the module declares itself, directly or not, a subtype of another, or is
    /// the same entry. Types that are equal without being the same entry are not found.
    #[must_use]
    pub fn declares_subtype(&self, mut ty: TypeIndex, of: TypeIndex) -> bool {
        // Each supertype stands before its subtypes, so this ends.
        while ty != of {
            match self.types[ty].supertype {
                Some(supertype) if supertype < ty => ty = supertype,
                _ => return false,
            }
        }
        true
    }

    /// The type of a tag.
    #[must_use]
    pub fn tag_type(&self, tag: TagIndex) -> &FuncType {
        self.func_type_at(self.tags[tag])
    }

    /// Whether a tag is an import.
    #[must_use]
    pub fn is_imported_tag(&self, tag: TagIndex) -> bool {
        tag.as_u32() < self.imported.tags
    }

    /// How many operands an operator of a constant expression takes; `None` if it makes an object
    /// of a type that is not of its kind.
    #[must_use]
    pub fn const_operands(&self, op: ConstOp) -> Option<usize> {
        let as_struct = |ty| self.types.get(ty).and_then(SubType::as_struct);
        let as_array = |ty| self.types.get(ty).and_then(SubType::as_array);
        Some(match op {
            ConstOp::I32Const(_)
            | ConstOp::I64Const(_)
            | ConstOp::F32Const(_)
            | ConstOp::F64Const(_)
            | ConstOp::V128Const(_)
            | ConstOp::GlobalGet(_)
            | ConstOp::RefNull
            | ConstOp::RefFunc(_) => 0,
            ConstOp::RefI31 => 1,
            ConstOp::I32Add
            | ConstOp::I32Sub
            | ConstOp::I32Mul
            | ConstOp::I64Add
            | ConstOp::I64Sub
            | ConstOp::I64Mul => 2,
            ConstOp::StructNew(ty) => as_struct(ty)?.fields.len(),
            ConstOp::StructNewDefault(ty) => as_struct(ty).map(|_| 0)?,
            ConstOp::ArrayNew(ty) => as_array(ty).map(|_| 2)?,
            ConstOp::ArrayNewDefault(ty) => as_array(ty).map(|_| 1)?,
            ConstOp::ArrayNewFixed(ty, length) => as_array(ty).map(|_| length as usize)?,
        })
    }

    /// How many types stand above a type, each declared the supertype of the next.
    #[must_use]
    pub fn type_depth(&self, mut ty: TypeIndex) -> usize {
        let mut depth = 0;
        // Each supertype stands before its subtypes, so this ends.
        while let Some(supertype) = self.types[ty].supertype.filter(|&above| above < ty) {
            (ty, depth) = (supertype, depth + 1);
        }
        depth
    }

    /// The export with this name.
    #[must_use]
    pub fn export(&self, name: &str) -> Option<ExportIndex> {
        self.exports.iter().find(|e| e.name == name).map(|e| e.index)
    }

    /// The function of a name that is exported with neither parameters nor results.
    #[must_use]
    pub fn procedure(&self, name: &str) -> Option<FuncIndex> {
        let Some(ExportIndex::Func(func)) = self.export(name) else { return None };
        let ty = self.func_type(func);
        (ty.params.is_empty() && ty.results.is_empty()).then_some(func)
    }

    /// Whether it is to be initialised, by the convention of Wizer, and is not yet.
    #[must_use]
    pub fn wants_initialization(&self) -> bool {
        !self.initialized && self.procedure(WIZER_INITIALIZE).is_some()
    }

    /// The layout of this module's contexts.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let defined = |len: usize, imported: u32| len as u32 - imported;
        Layout::new(Shape {
            types: self.types.len() as u32,
            imported_funcs: self.imported.functions,
            imported_memories: self.imported.memories,
            imported_tables: self.imported.tables,
            imported_globals: self.imported.globals,
            defined_memories: defined(self.memories.len(), self.imported.memories),
            defined_tables: defined(self.tables.len(), self.imported.tables),
            defined_globals: defined(self.globals.len(), self.imported.globals),
            escaped_funcs: self.escaped_funcs,
            tags: self.tags.len() as u32,
        })
    }
}
