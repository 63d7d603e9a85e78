//! References as arguments and results of host functions.

use super::{Caller, HostError, HostResult, WasmValue, private, single_result};
use crate::runtime::func::Func;
use crate::runtime::store::get;
use crate::runtime::types::{HeapType, RefType, ValType};
use crate::runtime::val::{AnyRef, ExnRef, ExternRef, Val};
use crate::runtime::vmcontext::Slot;

macro_rules! references {
    ($($ty:ident as $bits:ty => $variant:ident, $heap:ident;)*) => {$(
        impl WasmValue for Option<$ty> {}
        impl private::Value for Option<$ty> {
            const TYPE: ValType =
                ValType::Ref(RefType { nullable: true, heap: HeapType::$heap });
            fn load(slot: &Slot, caller: &Caller<'_>) -> Self {
                let mut bytes = [0; size_of::<$bits>()];
                bytes.copy_from_slice(&slot[..size_of::<$bits>()]);
                let raw = u128::from(<$bits>::from_le_bytes(bytes));
                // SAFETY: compiled code of this store passes values of the function's type, which
                // is made of `TYPE`.
                match unsafe { Val::from_raw(raw, Self::TYPE, get(caller)) } {
                    Val::$variant(value) => value,
                    _ => None,
                }
            }
            fn store(self, slot: &mut Slot, caller: &Caller<'_>) {
                *slot = Val::$variant(self).to_raw(get(caller)).to_le_bytes();
            }
        }
        single_result!(Option<$ty>);
    )*};
}

references! {
    Func as u64 => FuncRef, Func;
    ExternRef as u32 => ExternRef, Extern;
    AnyRef as u32 => AnyRef, Any;
    ExnRef as u32 => ExnRef, Exn;
}
