//! Types of imports and exports in words, for messages.

use super::instance::Extern;
use super::store::StoreInner;
use crate::module::ImportType;
use crate::module::ModuleInfo;
use crate::module::types::{FuncType, GlobalType, MemoryType, TableType, ValType};

/// The type of something importable.
#[derive(Debug)]
pub(super) enum ExternType {
    Func(FuncType),
    Table(TableType),
    Memory(MemoryType),
    Global(GlobalType),
}

/// What is found.
pub(super) fn extern_type(store: &StoreInner, item: Extern) -> ExternType {
    match item {
        Extern::Func(func) => {
            ExternType::Func((*store.engine.func_type(func.type_id(store))).clone())
        }
        Extern::Table(table) => ExternType::Table(store.table(table).current_type()),
        Extern::Memory(memory) => ExternType::Memory(store.memory(memory).current_type()),
        Extern::Global(global) => ExternType::Global(global.ty),
    }
}

/// What is wanted.
pub(super) fn import_type(info: &ModuleInfo, ty: &ImportType) -> ExternType {
    match *ty {
        ImportType::Func(sig) => ExternType::Func(info.signatures[sig].clone()),
        ImportType::Table(ty) => ExternType::Table(ty),
        ImportType::Memory(ty) => ExternType::Memory(ty),
        ImportType::Global(ty) => ExternType::Global(ty),
    }
}

/// A type in words.
pub(super) fn describe(ty: &ExternType) -> String {
    match ty {
        ExternType::Func(ty) => {
            format!("function ({}) -> ({})", list(&ty.params), list(&ty.results))
        }
        ExternType::Table(ty) => {
            format!(
                "table of {} with {}",
                name(ValType::Ref(ty.element)),
                limits(ty.min, ty.max, "elements")
            )
        }
        ExternType::Memory(ty) => format!("memory with {}", limits(ty.min, ty.max, "pages")),
        ExternType::Global(ty) => {
            let mutability = if ty.mutable { "mutable" } else { "immutable" };
            format!("{mutability} global of type {}", name(ty.content))
        }
    }
}

fn list(types: &[ValType]) -> String {
    types.iter().map(|&ty| name(ty)).collect::<Vec<_>>().join(", ")
}

fn name(ty: ValType) -> &'static str {
    match ty {
        ValType::I32 => "i32",
        ValType::I64 => "i64",
        ValType::F32 => "f32",
        ValType::F64 => "f64",
        ValType::V128 => "v128",
        ValType::Ref(ty) => match (ty.heap.is_func(), ty.nullable) {
            (true, true) => "funcref",
            (true, false) => "(ref func)",
            (false, true) => "externref",
            (false, false) => "(ref extern)",
        },
    }
}

fn limits(min: u64, max: Option<u64>, unit: &str) -> String {
    match max {
        Some(max) => format!("{min} to {max} {unit}"),
        None => format!("at least {min} {unit}"),
    }
}
