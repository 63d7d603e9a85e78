//! The validator's types in the engine's own words.

use wasmparser::{AbstractHeapType, HeapType as WasmHeapType};

use super::DecodeError;
use crate::module::types::{
    FuncType, GlobalType, HeapType, MemoryType, RefType, TableType, ValType,
};

/// A type that the feature list lets through although the engine does not know it: a fault of the
/// list, reported as such.
fn unknown(message: String) -> DecodeError {
    DecodeError::Invalid { offset: 0, message }
}

/// A value type.
pub(crate) fn val_type(ty: wasmparser::ValType) -> Result<ValType, DecodeError> {
    Ok(match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(ty) => ValType::Ref(ref_type(ty)?),
    })
}

/// A reference type.
pub(crate) fn ref_type(ty: wasmparser::RefType) -> Result<RefType, DecodeError> {
    Ok(RefType { nullable: ty.is_nullable(), heap: heap_type(ty.heap_type())? })
}

/// What a reference refers to.
pub(crate) fn heap_type(ty: WasmHeapType) -> Result<HeapType, DecodeError> {
    match ty {
        WasmHeapType::Abstract { shared: false, ty: AbstractHeapType::Func } => Ok(HeapType::Func),
        WasmHeapType::Abstract { shared: false, ty: AbstractHeapType::Extern } => {
            Ok(HeapType::Extern)
        }
        other => Err(unknown(format!("reference type {other:?} is not supported"))),
    }
}

pub(super) fn func_type(ty: &wasmparser::FuncType) -> Result<FuncType, DecodeError> {
    let all = |types: &[wasmparser::ValType]| {
        types.iter().map(|&ty| val_type(ty)).collect::<Result<Vec<_>, _>>()
    };
    Ok(FuncType { params: all(ty.params())?, results: all(ty.results())? })
}

pub(super) fn table_type(ty: wasmparser::TableType) -> Result<TableType, DecodeError> {
    Ok(TableType {
        element: ref_type(ty.element_type)?,
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

pub(super) fn global_type(ty: wasmparser::GlobalType) -> Result<GlobalType, DecodeError> {
    Ok(GlobalType { content: val_type(ty.content_type)?, mutable: ty.mutable })
}
