//! The validator's types in the engine's own words.

use wasmparser::{AbstractHeapType, CompositeInnerType, UnpackedIndex};

use super::DecodeError;
use crate::module::ModuleInfo;
use crate::module::index::TypeIndex;
use crate::module::types::{
    ArrayType, CompositeType, FieldType, FuncType, GlobalType, HeapType, MemoryType, RefType,
    StorageType, StructType, SubType, TableType, TypeKind, ValType,
};

/// A type that the feature list lets through although the engine does not know it: a fault of the
/// list, reported as such.
fn unknown(message: String) -> DecodeError {
    DecodeError::Invalid { offset: 0, message }
}

/// The kinds of a module's defined types, which references to them stand with.
pub(super) trait Kinds {
    fn kind(&self, ty: TypeIndex) -> Option<TypeKind>;
}

impl Kinds for Vec<TypeKind> {
    fn kind(&self, ty: TypeIndex) -> Option<TypeKind> {
        self.get(ty.as_u32() as usize).copied()
    }
}

impl Kinds for ModuleInfo {
    fn kind(&self, ty: TypeIndex) -> Option<TypeKind> {
        self.types.get(ty).map(SubType::kind)
    }
}

impl ModuleInfo {
    /// A value type of this module's code.
    pub(crate) fn val_type(&self, ty: wasmparser::ValType) -> Result<ValType, DecodeError> {
        val_type(self, ty)
    }

    /// What a reference of this module's code refers to.
    pub(crate) fn heap_type(&self, ty: wasmparser::HeapType) -> Result<HeapType, DecodeError> {
        heap_type(self, ty)
    }
}

/// A value type.
fn val_type(kinds: &impl Kinds, ty: wasmparser::ValType) -> Result<ValType, DecodeError> {
    Ok(match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(ty) => ValType::Ref(ref_type(kinds, ty)?),
    })
}

/// A reference type.
pub(super) fn ref_type(
    kinds: &impl Kinds,
    ty: wasmparser::RefType,
) -> Result<RefType, DecodeError> {
    Ok(RefType { nullable: ty.is_nullable(), heap: heap_type(kinds, ty.heap_type())? })
}

fn heap_type(kinds: &impl Kinds, ty: wasmparser::HeapType) -> Result<HeapType, DecodeError> {
    match ty {
        wasmparser::HeapType::Abstract { shared: false, ty } => abstract_type(ty),
        wasmparser::HeapType::Concrete(UnpackedIndex::Module(ty)) => {
            let ty = TypeIndex::from_u32(ty);
            let kind = kinds.kind(ty).ok_or_else(|| unknown(format!("unknown {ty}")))?;
            Ok(HeapType::concrete(kind, ty))
        }
        other => Err(unknown(format!("reference type {other:?} is not supported"))),
    }
}

fn abstract_type(ty: AbstractHeapType) -> Result<HeapType, DecodeError> {
    Ok(match ty {
        AbstractHeapType::Func => HeapType::Func,
        AbstractHeapType::NoFunc => HeapType::NoFunc,
        AbstractHeapType::Extern => HeapType::Extern,
        AbstractHeapType::NoExtern => HeapType::NoExtern,
        AbstractHeapType::Any => HeapType::Any,
        AbstractHeapType::Eq => HeapType::Eq,
        AbstractHeapType::I31 => HeapType::I31,
        AbstractHeapType::Struct => HeapType::Struct,
        AbstractHeapType::Array => HeapType::Array,
        AbstractHeapType::None => HeapType::None,
        AbstractHeapType::Exn => HeapType::Exn,
        AbstractHeapType::NoExn => HeapType::NoExn,
        AbstractHeapType::Cont | AbstractHeapType::NoCont => {
            return Err(unknown(format!("reference type {ty:?} is not supported")));
        }
    })
}

/// The kind of a type that is to be defined.
pub(super) fn kind(ty: &wasmparser::SubType) -> Result<TypeKind, DecodeError> {
    match &ty.composite_type.inner {
        CompositeInnerType::Func(_) => Ok(TypeKind::Func),
        CompositeInnerType::Struct(_) => Ok(TypeKind::Struct),
        CompositeInnerType::Array(_) => Ok(TypeKind::Array),
        CompositeInnerType::Cont(_) => Err(unknown(format!("type `{ty}` is not supported"))),
    }
}

/// A defined type. `kinds` holds those of its own recursion group, too.
pub(super) fn sub_type(
    kinds: &impl Kinds,
    ty: &wasmparser::SubType,
) -> Result<SubType, DecodeError> {
    let composite = &ty.composite_type;
    let exotic = composite.shared
        || composite.descriptor_idx.is_some()
        || composite.describes_idx.is_some()
        || ty.supertype_idxs.len() > 1;
    if exotic {
        return Err(unknown(format!("type `{ty}` is not supported")));
    }
    let supertype = match ty.supertype_idxs.first().map(|index| index.unpack()) {
        None => None,
        Some(UnpackedIndex::Module(index)) => Some(TypeIndex::from_u32(index)),
        Some(_) => return Err(unknown(format!("supertype of `{ty}` is not supported"))),
    };
    let composite = match &composite.inner {
        CompositeInnerType::Func(ty) => CompositeType::Func(func_type(kinds, ty)?),
        CompositeInnerType::Struct(ty) => {
            let fields = ty.fields.iter().map(|&field| field_type(kinds, field));
            CompositeType::Struct(StructType { fields: fields.collect::<Result<_, _>>()? })
        }
        CompositeInnerType::Array(ty) => {
            CompositeType::Array(ArrayType { element: field_type(kinds, ty.0)? })
        }
        CompositeInnerType::Cont(_) => {
            return Err(unknown(format!("type `{ty}` is not supported")));
        }
    };
    Ok(SubType { is_final: ty.is_final, supertype, composite })
}

fn func_type(kinds: &impl Kinds, ty: &wasmparser::FuncType) -> Result<FuncType, DecodeError> {
    let all = |types: &[wasmparser::ValType]| {
        types.iter().map(|&ty| val_type(kinds, ty)).collect::<Result<Vec<_>, _>>()
    };
    Ok(FuncType { params: all(ty.params())?, results: all(ty.results())? })
}

fn field_type(kinds: &impl Kinds, ty: wasmparser::FieldType) -> Result<FieldType, DecodeError> {
    let storage = match ty.element_type {
        wasmparser::StorageType::I8 => StorageType::I8,
        wasmparser::StorageType::I16 => StorageType::I16,
        wasmparser::StorageType::Val(ty) => StorageType::Val(val_type(kinds, ty)?),
    };
    Ok(FieldType { storage, mutable: ty.mutable })
}

pub(super) fn table_type(
    kinds: &impl Kinds,
    ty: wasmparser::TableType,
) -> Result<TableType, DecodeError> {
    Ok(TableType {
        element: ref_type(kinds, ty.element_type)?,
        table64: ty.table64,
        min: ty.initial,
        max: ty.maximum,
    })
}

pub(super) fn memory_type(ty: wasmparser::MemoryType) -> MemoryType {
    MemoryType {
        memory64: ty.memory64,
        shared: ty.shared,
        min: ty.initial,
        max: ty.maximum,
        page_size_log2: ty.page_size_log2() as u8,
    }
}

pub(super) fn global_type(
    kinds: &impl Kinds,
    ty: wasmparser::GlobalType,
) -> Result<GlobalType, DecodeError> {
    Ok(GlobalType { content: val_type(kinds, ty.content_type)?, mutable: ty.mutable })
}
