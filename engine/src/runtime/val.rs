//! Values on their way between host and guest.

use std::num::NonZeroU32;

use super::exception::{Exception, RawException};
use super::func::Func;
use super::gc::{Reference, release};
use super::store::{AsStore, StoreInner, get, get_mut};
use super::trap::Backtrace;
use super::types::{HeapType, RefType, ValType};
use crate::module::types::Hierarchy;

/// A reference of type `externref`: something of the host, opaque to the guest, or a value of the
/// guest that it turned into one (`extern.convert_any`).
///
/// ```
/// use coracle_engine::runtime::ExternRef;
/// assert_eq!(ExternRef::new(7).and_then(ExternRef::number), Some(7));
/// assert!(ExternRef::new(0).is_none() && ExternRef::new(1 << 30).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExternRef(Reference);

/// A reference of type `anyref` that is not null: an `i31`, a structure, an array, or a reference
/// to something of the host (`any.convert_extern`).
///
/// The handle of a structure or array keeps it alive until it is released, or until the host
/// function returns that got it; using it later panics. See
/// [`Store::ref_scope`](super::Store::ref_scope). Handles are equal if they refer to the same.
///
/// ```
/// use coracle_engine::runtime::AnyRef;
/// assert_eq!(AnyRef::i31(-5).as_i31(), Some(-5));
/// assert_eq!(AnyRef::i31(1 << 30).as_i31(), Some(-1 << 30), "the upper bit is lost");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnyRef(pub(super) Reference);

/// A reference of type `exnref` that is not null: an exception that the guest caught.
///
/// As for [`AnyRef`], the handle keeps it alive.
///
/// ```
/// use coracle_engine::runtime::{Engine, Exception, ExnRef, Store, Tag, Val, ValType};
/// let mut store = Store::new(&Engine::new())?;
/// let tag = Tag::new(&mut store, [ValType::I32]);
/// let made = Exception::new(&mut store, tag, &[Val::I32(3)])?;
/// let reference: ExnRef = made.to_ref(&store);
/// let found = reference.exception(&mut store);
/// assert_eq!((found.tag(), found.values(&store)), (tag, vec![Val::I32(3)]));
/// reference.release(&mut store);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExnRef(pub(super) Reference);

/// What the lowest bits of a reference that is no function say: bit 0 is set for `i31`, and these
/// two are so for something of the host. Objects are aligned to 16.
const HOST_TAG: u32 = 0b10;
const TAG_BITS: u32 = 0b11;

impl ExternRef {
    /// A reference to what the host knows by a number. `None` unless the number is from 1 to
    /// 2^30 - 1.
    #[must_use]
    pub fn new(number: u32) -> Option<ExternRef> {
        let fits = number != 0 && number >> 30 == 0;
        let raw = NonZeroU32::new(number << 2 | HOST_TAG).filter(|_| fits);
        raw.map(|raw| ExternRef(Reference::inline(raw)))
    }

    /// The host's number; `None` for a value of the guest.
    #[must_use]
    pub fn number(self) -> Option<u32> {
        let raw = self.0.bits();
        (raw & TAG_BITS == HOST_TAG).then_some(raw >> 2)
    }

    /// The same as an `anyref`: what `any.convert_extern` gives.
    #[must_use]
    pub fn to_any(self) -> AnyRef {
        AnyRef(self.0)
    }

    /// Lets go of the guest's object that it refers to, if it does: see [`AnyRef::release`].
    pub fn release(self, store: &mut impl AsStore) {
        release(store, self.0);
    }
}

impl AnyRef {
    /// An `i31` of the lower 31 bits of `value`.
    #[must_use]
    pub fn i31(value: i32) -> AnyRef {
        AnyRef(Reference::inline(NonZeroU32::MIN | (value << 1) as u32))
    }

    /// The value of an `i31`, sign-extended.
    #[must_use]
    pub fn as_i31(self) -> Option<i32> {
        let raw = self.0.bits() as i32;
        (raw & 1 == 1).then_some(raw >> 1)
    }

    /// The same as an `externref`: what `extern.convert_any` gives.
    #[must_use]
    pub fn to_extern(self) -> ExternRef {
        ExternRef(self.0)
    }

    /// Lets go of the object that it refers to, if it does: the handle, and every copy of it, must
    /// not be used any more.
    pub fn release(self, store: &mut impl AsStore) {
        release(store, self.0);
    }
}

impl ExnRef {
    /// The exception, to look into or to raise again. Where it was thrown is not known any more.
    ///
    /// # Panics
    /// When the handle is no longer good, or of another store.
    #[must_use]
    pub fn exception(self, store: &mut impl AsStore) -> Exception {
        let store = get_mut(store);
        let raw = RawException::from(store.raw_reference(self.0));
        Exception::from_raw(store, raw, Backtrace::default())
    }

    /// Lets go of the exception: the handle, and every copy of it, must not be used any more.
    pub fn release(self, store: &mut impl AsStore) {
        release(store, self.0);
    }
}

/// A value: core specification, "Values".
///
/// Floats are equal if their bits are, so that a NaN equals itself and 0 differs from -0. References
/// are equal if they refer to the same.
///
/// ```
/// use coracle_engine::runtime::{Val, ValType};
/// assert_eq!(Val::from(1.5f64).as_f64(), Some(1.5));
/// assert_eq!(Val::I32(7).as_i64(), None, "another type");
/// assert_eq!(Val::F32(f32::NAN), Val::F32(f32::NAN));
/// assert_eq!(Val::default_of(ValType::FUNCREF), Val::FuncRef(None));
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum Val {
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
    /// Lane 0 in the lowest bits.
    V128(u128),
    /// A reference to a function, of type `funcref` or one below it.
    FuncRef(Option<Func>),
    /// A reference of type `externref` or below.
    ExternRef(Option<ExternRef>),
    /// A reference of type `anyref` or below.
    AnyRef(Option<AnyRef>),
    /// A reference of type `exnref` or below.
    ExnRef(Option<ExnRef>),
}

impl PartialEq for Val {
    fn eq(&self, other: &Val) -> bool {
        match (self, other) {
            (Val::I32(a), Val::I32(b)) => a == b,
            (Val::I64(a), Val::I64(b)) => a == b,
            (Val::F32(a), Val::F32(b)) => a.to_bits() == b.to_bits(),
            (Val::F64(a), Val::F64(b)) => a.to_bits() == b.to_bits(),
            (Val::V128(a), Val::V128(b)) => a == b,
            (Val::FuncRef(a), Val::FuncRef(b)) => a == b,
            (Val::ExternRef(a), Val::ExternRef(b)) => a == b,
            (Val::AnyRef(a), Val::AnyRef(b)) => a == b,
            (Val::ExnRef(a), Val::ExnRef(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Val {}

macro_rules! accessors {
    ($($name:ident $ty:ty, $variant:ident;)*) => {
        /// What it holds, if it has the type that is asked for.
        impl Val {$(
            #[doc = concat!("The value of type `", stringify!($ty), "`, if it is [`Val::", stringify!($variant), "`].")]
            #[must_use]
            pub fn $name(self) -> Option<$ty> {
                match self {
                    Val::$variant(value) => Some(value),
                    _ => None,
                }
            }
        )*}
    };
}

accessors! {
    as_i32 i32, I32;
    as_i64 i64, I64;
    as_f32 f32, F32;
    as_f64 f64, F64;
    as_v128 u128, V128;
}

impl Val {
    /// Null of a heap type.
    #[must_use]
    pub fn null(heap: HeapType) -> Val {
        match heap.hierarchy() {
            Hierarchy::Func => Val::FuncRef(None),
            Hierarchy::Extern => Val::ExternRef(None),
            Hierarchy::Any => Val::AnyRef(None),
            Hierarchy::Exn => Val::ExnRef(None),
        }
    }

    /// Zero or null: core specification, "Runtime Structure", "Values". Null also for a reference
    /// type that has no null, which then does not have that type.
    #[must_use]
    pub fn default_of(ty: ValType) -> Val {
        match ty {
            ValType::I32 => Val::I32(0),
            ValType::I64 => Val::I64(0),
            ValType::F32 => Val::F32(0.0),
            ValType::F64 => Val::F64(0.0),
            ValType::V128 => Val::V128(0),
            ValType::Ref(ty) => Val::null(ty.heap),
        }
    }

    /// The most precise type of the value: for null, the lowest type of its hierarchy.
    ///
    /// # Panics
    /// When it is a function of another store.
    #[must_use]
    pub fn ty(&self, store: &impl AsStore) -> ValType {
        let reference = |nullable, heap| ValType::Ref(RefType { nullable, heap });
        match self {
            Val::I32(_) => ValType::I32,
            Val::I64(_) => ValType::I64,
            Val::F32(_) => ValType::F32,
            Val::F64(_) => ValType::F64,
            Val::V128(_) => ValType::V128,
            Val::FuncRef(None) => reference(true, HeapType::NoFunc),
            Val::FuncRef(Some(func)) => {
                reference(false, HeapType::ConcreteFunc(func.type_id(get(store))))
            }
            Val::ExternRef(None) => reference(true, HeapType::NoExtern),
            Val::ExternRef(Some(_)) => reference(false, HeapType::Extern),
            Val::AnyRef(None) => reference(true, HeapType::None),
            Val::AnyRef(Some(value)) => reference(false, value.heap_type(get(store))),
            Val::ExnRef(None) => reference(true, HeapType::NoExn),
            Val::ExnRef(Some(_)) => reference(false, HeapType::Exn),
        }
    }

    /// Whether the value may stand where `ty` is expected. Functions must belong to `store`.
    pub(super) fn matches(&self, ty: ValType, store: &StoreInner) -> bool {
        match (self, ty) {
            (Val::I32(_), ValType::I32)
            | (Val::I64(_), ValType::I64)
            | (Val::F32(_), ValType::F32)
            | (Val::F64(_), ValType::F64)
            | (Val::V128(_), ValType::V128) => true,
            (_, ValType::Ref(ty)) => self.matches_ref(ty, store),
            _ => false,
        }
    }

    fn matches_ref(&self, ty: RefType, store: &StoreInner) -> bool {
        let is = |hierarchy| ty.heap.hierarchy() == hierarchy;
        match *self {
            Val::FuncRef(None) => is(Hierarchy::Func) && ty.nullable,
            Val::FuncRef(Some(func)) => {
                let found = HeapType::ConcreteFunc(func.type_id(store));
                store.engine.is_heap_subtype(found, ty.heap)
            }
            Val::ExternRef(None) => is(Hierarchy::Extern) && ty.nullable,
            Val::ExternRef(Some(_)) => ty.heap == HeapType::Extern,
            Val::AnyRef(None) => is(Hierarchy::Any) && ty.nullable,
            Val::AnyRef(Some(value)) => {
                store.engine.is_heap_subtype(value.heap_type(store), ty.heap)
            }
            Val::ExnRef(None) => is(Hierarchy::Exn) && ty.nullable,
            Val::ExnRef(Some(_)) => ty.heap == HeapType::Exn,
            _ => false,
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
            Val::FuncRef(Some(func)) => func.record(store).as_ptr().expose_provenance() as u128,
            Val::ExternRef(Some(ExternRef(raw)))
            | Val::AnyRef(Some(AnyRef(raw)))
            | Val::ExnRef(Some(ExnRef(raw))) => u128::from(store.raw_reference(raw).get()),
            Val::FuncRef(None) | Val::ExternRef(None) | Val::AnyRef(None) | Val::ExnRef(None) => 0,
        }
    }

    /// The value of type `ty` behind what compiled code holds.
    ///
    /// # Safety
    /// When `ty` is a reference, `raw` must come from compiled code, tables or objects of `store`.
    pub(super) unsafe fn from_raw(raw: u128, ty: ValType, store: &StoreInner) -> Val {
        let reference = || NonZeroU32::new(raw as u32).map(|raw| store.reference(raw));
        match ty {
            ValType::I32 => Val::I32(raw as i32),
            ValType::I64 => Val::I64(raw as i64),
            ValType::F32 => Val::F32(f32::from_bits(raw as u32)),
            ValType::F64 => Val::F64(f64::from_bits(raw as u64)),
            ValType::V128 => Val::V128(raw),
            ValType::Ref(ty) => match ty.heap.hierarchy() {
                // SAFETY: the caller's promise.
                Hierarchy::Func => Val::FuncRef(unsafe { Func::from_raw(raw as usize, store) }),
                Hierarchy::Extern => Val::ExternRef(reference().map(ExternRef)),
                Hierarchy::Any => Val::AnyRef(reference().map(AnyRef)),
                Hierarchy::Exn => Val::ExnRef(reference().map(ExnRef)),
            },
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
    Option<Func> => FuncRef;
    Option<ExternRef> => ExternRef;
    Option<AnyRef> => AnyRef;
    Option<ExnRef> => ExnRef;
}

macro_rules! references {
    ($($ty:ident => $variant:ident;)*) => {$(
        impl From<$ty> for Val {
            fn from(value: $ty) -> Val { Val::$variant(Some(value)) }
        }
    )*};
}

references! {
    Func => FuncRef;
    ExternRef => ExternRef;
    AnyRef => AnyRef;
    ExnRef => ExnRef;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_equal_by_type_and_bits() {
        assert_eq!(Val::F64(f64::NAN), Val::F64(f64::NAN));
        assert_ne!(Val::F32(0.0), Val::F32(-0.0));
        assert_ne!(Val::I32(1), Val::I64(1));
        assert_ne!(Val::ExternRef(None), Val::AnyRef(None));
        let number = |n| Val::from(ExternRef::new(n).unwrap());
        assert_eq!(number(7), number(7));
        assert_ne!(number(7), number(8));
        assert_ne!(Val::from(AnyRef::i31(3)), Val::AnyRef(None));
    }
}
