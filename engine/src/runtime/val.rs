//! Values on their way between host and guest.

use std::num::NonZeroU32;

use super::func::Func;
use super::store::StoreInner;
use crate::module::types::ValType;

/// A reference to something of the host, opaque to the guest: a number that the host chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExternRef(pub NonZeroU32);

/// A value. Floats compare by bits.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum Val {
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
    /// Lane 0 in the lowest bits.
    V128(u128),
    FuncRef(Option<Func>),
    ExternRef(Option<ExternRef>),
}

impl Val {
    /// The value's type; references count as nullable.
    #[must_use]
    pub fn ty(&self) -> ValType {
        match self {
            Val::I32(_) => ValType::I32,
            Val::I64(_) => ValType::I64,
            Val::F32(_) => ValType::F32,
            Val::F64(_) => ValType::F64,
            Val::V128(_) => ValType::V128,
            Val::FuncRef(_) => ValType::FUNCREF,
            Val::ExternRef(_) => ValType::EXTERNREF,
        }
    }

    /// Whether the value may stand where `ty` is expected.
    pub(super) fn matches(&self, ty: ValType) -> bool {
        match (self, ty) {
            (Val::FuncRef(value), ValType::Ref(ty)) => {
                ty.heap.is_func() && (ty.nullable || value.is_some())
            }
            (Val::ExternRef(value), ValType::Ref(ty)) => {
                !ty.heap.is_func() && (ty.nullable || value.is_some())
            }
            _ => self.ty() == ty,
        }
    }

    /// The value as compiled code holds it. Functions must belong to `store`.
    pub(super) fn to_raw(self, store: &StoreInner) -> u128 {
        match self {
            Val::I32(value) => u128::from(value as u32),
            Val::I64(value) => u128::from(value as u64),
            Val::F32(value) => u128::from(value.to_bits()),
            Val::F64(value) => u128::from(value.to_bits()),
            Val::V128(value) => value,
            Val::FuncRef(None) | Val::ExternRef(None) => 0,
            Val::FuncRef(Some(func)) => func.record(store).as_ptr().expose_provenance() as u128,
            Val::ExternRef(Some(handle)) => u128::from(handle.0.get()),
        }
    }

    /// The value of type `ty` behind what compiled code holds.
    ///
    /// # Safety
    /// When `ty` is a function reference, `raw` must come from compiled code or tables of `store`.
    pub(super) unsafe fn from_raw(raw: u128, ty: ValType, store: &StoreInner) -> Val {
        match ty {
            ValType::I32 => Val::I32(raw as i32),
            ValType::I64 => Val::I64(raw as i64),
            ValType::F32 => Val::F32(f32::from_bits(raw as u32)),
            ValType::F64 => Val::F64(f64::from_bits(raw as u64)),
            ValType::V128 => Val::V128(raw),
            ValType::Ref(ty) if ty.heap.is_func() => {
                // SAFETY: the caller's promise.
                Val::FuncRef(unsafe { Func::from_raw(raw as usize, store) })
            }
            ValType::Ref(_) => Val::ExternRef(NonZeroU32::new(raw as u32).map(ExternRef)),
        }
    }
}

macro_rules! conversions {
    ($($ty:ty => $variant:ident;)*) => {$(
        impl From<$ty> for Val {
            fn from(value: $ty) -> Val { Val::$variant(value) }
        }
    )*};
}

conversions! {
    i32 => I32;
    i64 => I64;
    f32 => F32;
    f64 => F64;
    u128 => V128;
}
