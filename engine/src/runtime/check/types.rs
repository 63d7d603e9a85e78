//! Whether a description's types are such that the registry can number them.

use cranelift_entity::EntityRef;

use crate::module::index::TypeIndex;
use crate::module::types::{HeapType, RefType, SubType, ValType};
use crate::module::{ModuleInfo, limits};

/// Whether all types that are named exist, are of the kind that is said, and stand in an order in
/// which they can be numbered.
pub(super) fn types(info: &ModuleInfo) -> bool {
    groups(info) && supertypes(info) && signatures(info)
}

/// Recursion groups have as many types as there are, and each type names those before its group and
/// in it only.
fn groups(info: &ModuleInfo) -> bool {
    let mut end = 0usize;
    for &len in &info.rec_groups {
        let start = end;
        end += len as usize;
        let Some(group) = info.types.values().as_slice().get(start..end) else { return false };
        let mut valid = true;
        for ty in group {
            valid &= ty.supertype.is_none_or(|supertype| supertype.index() < end);
            ty.for_each_value(|ty| valid &= value_type(info, ty, end));
        }
        if !valid {
            return false;
        }
    }
    end == info.types.len()
}

/// A supertype stands before its subtypes, is of their kind and can have some; there are not too
/// many above each other.
fn supertypes(info: &ModuleInfo) -> bool {
    let mut depths: Vec<usize> = Vec::with_capacity(info.types.len());
    for ty in info.types.values() {
        let depth = match ty.supertype {
            None => 0,
            Some(supertype) => match (info.types.get(supertype), depths.get(supertype.index())) {
                (Some(above), Some(depth)) if !above.is_final && above.kind() == ty.kind() => {
                    depth + 1
                }
                _ => return false,
            },
        };
        if depth > limits::SUPERTYPES {
            return false;
        }
        depths.push(depth);
    }
    true
}

/// Each function type, and no other type, has a signature, and it is the right one.
fn signatures(info: &ModuleInfo) -> bool {
    info.types.len() == info.type_signatures.len()
        && info.types.values().zip(info.type_signatures.values()).all(|(ty, signature)| {
            match (ty.as_func(), signature) {
                (Some(ty), Some(signature)) => {
                    info.signatures.get(*signature).is_some_and(|found| ty.has_signature(found))
                }
                (None, None) => true,
                _ => false,
            }
        })
}

/// Whether a type is a function type.
pub(super) fn is_func(info: &ModuleInfo, ty: TypeIndex) -> bool {
    info.types.get(ty).and_then(SubType::as_func).is_some()
}

/// Whether a type that something of the module has can be numbered.
pub(super) fn value(info: &ModuleInfo, ty: ValType) -> bool {
    value_type(info, ty, info.types.len())
}

/// The same for a reference type.
pub(super) fn reference(info: &ModuleInfo, ty: RefType) -> bool {
    heap_type(info, ty.heap, info.types.len())
}

fn value_type(info: &ModuleInfo, ty: ValType, end: usize) -> bool {
    match ty {
        ValType::Ref(ty) => heap_type(info, ty.heap, end),
        _ => true,
    }
}

/// Whether a type that is named stands before `end` and is of the kind that is said.
fn heap_type(info: &ModuleInfo, ty: HeapType, end: usize) -> bool {
    ty.as_concrete().is_none_or(|(kind, ty)| {
        ty.index() < end && info.types.get(ty).is_some_and(|ty| ty.kind() == kind)
    })
}
