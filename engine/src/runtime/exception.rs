//! Exceptions and their tags: the handles that embedders use, and the object behind them.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::store::{AsStore, StoreId, StoreInner, get, get_mut};
use super::trap::Backtrace;
use super::types::{FuncType, ValType};
use super::val::{ExnRef, Val};
use super::vmcontext::{Slot, TagRecord};
use crate::abi::gc::ObjectKind;
use crate::abi::layout::{VALUE_SIZE, exception};

/// What tells kinds of exceptions apart, and gives the types of the values that one carries. A
/// copyable handle; using it with another store panics.
///
/// Each tag is different from every other one, also from those of the same type. See the core
/// specification, section "Tag Instances".
///
/// ```
/// use coracle_engine::runtime::{Engine, Store, Tag, ValType};
/// let mut store = Store::new(&Engine::new())?;
/// let tag = Tag::new(&mut store, [ValType::I32, ValType::EXTERNREF]);
/// assert_eq!(tag.params(&store), [ValType::I32, ValType::EXTERNREF]);
/// assert_ne!(tag, Tag::new(&mut store, [ValType::I32, ValType::EXTERNREF]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub(super) store: StoreId,
    /// Its place in the store.
    pub(super) index: u32,
}

impl Tag {
    /// Makes a tag that belongs to no module, for exceptions that carry values of these types.
    pub fn new(store: &mut impl AsStore, params: impl Into<Vec<ValType>>) -> Tag {
        let inner = get_mut(store);
        let ty = FuncType { params: params.into(), results: Vec::new() };
        let type_id = inner.engine.define_func(ty);
        let index = inner.add_tag(type_id, None);
        Tag { store: inner.id, index }
    }

    /// The types of the values that its exceptions carry.
    #[must_use]
    pub fn params(self, store: &impl AsStore) -> &[ValType] {
        let inner = get(store);
        let type_id = self.record(inner).type_id;
        &inner.engine.func_type(type_id).params
    }

    pub(super) fn record(self, store: &StoreInner) -> &TagRecord {
        store.assert_owns(self.store);
        store.tag(self.index)
    }
}

/// Why the host cannot make an exception.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ExceptionError {
    #[error("values do not have the tag's types: {params}")]
    Values { params: String },
    #[error("no room for an exception in the store's heap")]
    Exhausted,
}

/// An exception that left compiled code without being caught, or that the host made.
///
/// Core specification, "Exception Instances".
///
/// It ends a call as [`CallError::Exception`](super::CallError::Exception). A host function that
/// fails with it, or with the `CallError` around it, raises it again in the guest that called it,
/// where a `try_table` can catch it. It keeps the values that it carries alive.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings};
/// use coracle_engine::runtime::{CallError, Caller, Engine, Exception, Linker, Module, Store, Tag};
/// use coracle_engine::runtime::{HostError, Val, ValType};
/// let wat = r#"(module
///     (import "host" "tag" (tag $tag (param i32)))
///     (import "host" "fail" (func $fail (param i32)))
///     (func (export "caught") (result i32)
///         (block $caught (result i32)
///             (try_table (catch $tag $caught) (call $fail (i32.const 7)))
///             (i32.const 0)))
///     (func (export "uncaught") (throw $tag (i32.const 8))))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let mut store = Store::new(&engine)?;
/// let tag = Tag::new(&mut store, [ValType::I32]);
/// let mut linker = Linker::new(&engine);
/// linker.define("host", "tag", tag);
/// linker.func_wrap("host", "fail", move |mut caller: Caller<'_>, n: i32| -> Result<(), HostError> {
///     Err(Exception::new(&mut caller, tag, &[Val::I32(n)])?.into())
/// });
/// let instance = linker.instantiate(&mut store, &module)?;
/// let mut results = Vec::new();
/// instance.func(&store, "caught").ok_or("no func")?.call(&mut store, &[], &mut results)?;
/// assert!(matches!(results[..], [Val::I32(7)]));
/// let uncaught = instance.func(&store, "uncaught").ok_or("no func")?;
/// let Err(CallError::Exception(exception)) = uncaught.call(&mut store, &[], &mut results) else {
///     panic!("no exception");
/// };
/// assert_eq!(exception.tag(), tag);
/// assert!(matches!(exception.values(&store)[..], [Val::I32(8)]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Exception {
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    tag: Tag,
    /// Keeps the object, and so all that the values refer to, from being collected.
    object: Arc<RawException>,
    /// The tag's name, if its module exports it.
    name: Option<Arc<str>>,
    /// The types of the values.
    params: Box<[ValType]>,
    values: Box<[Slot]>,
    backtrace: Backtrace,
}

impl Exception {
    /// Makes an exception, on the store's heap of objects: it counts towards
    /// [`max_gc_heap_bytes`](super::StoreConfig::max_gc_heap_bytes), 16 bytes for each value.
    ///
    /// # Errors
    /// When the values do not have the types that the tag asks for, or the store's heap is full.
    ///
    /// # Panics
    /// When the tag or a value belongs to another store.
    pub fn new(
        store: &mut impl AsStore,
        tag: Tag,
        values: &[Val],
    ) -> Result<Exception, ExceptionError> {
        let inner = get_mut(store);
        let record: *const TagRecord = tag.record(inner);
        let params = &inner.engine.func_type(tag.record(inner).type_id).params;
        let fits = values.len() == params.len()
            && values.iter().zip(params).all(|(value, &ty)| value.matches(ty, inner));
        if !fits {
            return Err(ExceptionError::Values { params: format!("{params:?}") });
        }
        let slots: Vec<Slot> =
            values.iter().map(|value| value.to_raw(inner).to_le_bytes()).collect();
        // SAFETY: the record is one of this store's.
        let raw = unsafe { RawException::allocate(inner, record) };
        let raw = raw.ok_or(ExceptionError::Exhausted)?;
        raw.write_values(inner, &slots);
        Ok(Exception::from_raw(inner, raw, Backtrace::default()))
    }

    /// The handle of an exception of this store.
    pub(super) fn from_raw(
        store: &mut StoreInner,
        raw: RawException,
        backtrace: Backtrace,
    ) -> Exception {
        // SAFETY: tag records live as long as the store.
        let record = unsafe { &*raw.tag(store) };
        let params: Box<[ValType]> =
            store.engine.func_type(record.type_id).params.as_slice().into();
        let inner = Inner {
            tag: Tag { store: store.id, index: record.index },
            name: record.name.clone(),
            values: raw.values(store, params.len()),
            object: store.hold(raw),
            params,
            backtrace,
        };
        Exception { inner: Box::new(inner) }
    }

    /// A reference to it, to give to guests as an `exnref`.
    ///
    /// # Panics
    /// With another store than its own.
    #[must_use]
    pub fn to_ref(&self, store: &impl AsStore) -> ExnRef {
        let store = get(store);
        store.assert_owns(self.inner.tag.store);
        ExnRef(store.reference(self.raw().0))
    }

    /// What kind of exception it is.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.inner.tag
    }

    /// The values that it carries.
    ///
    /// # Panics
    /// With another store than its own.
    #[must_use]
    pub fn values(&self, store: &impl AsStore) -> Vec<Val> {
        let store = get(store);
        store.assert_owns(self.inner.tag.store);
        let values = self.inner.params.iter().zip(&self.inner.values);
        values
            .map(|(&ty, slot)| {
                // SAFETY: the slots hold what compiled code of this store or `new` wrote as values
                // of these types.
                unsafe { Val::from_raw(u128::from_le_bytes(*slot), ty, store) }
            })
            .collect()
    }

    /// Where it was thrown: the innermost function first, at most
    /// [`MAX_FRAMES`](super::MAX_FRAMES). Of an exception that the guest caught and threw again,
    /// where it was thrown last; empty for one that the host made and no guest has seen yet.
    #[must_use]
    pub fn backtrace(&self) -> &[super::Frame] {
        self.inner.backtrace.frames()
    }

    /// Notes where it was thrown, if that is not known yet.
    pub(super) fn or_backtrace(&mut self, backtrace: impl FnOnce() -> Backtrace) {
        if self.inner.backtrace.frames().is_empty() {
            self.inner.backtrace = backtrace();
        }
    }

    pub(super) fn belongs_to(&self, store: &StoreInner) -> bool {
        self.inner.tag.store == store.id
    }

    pub(super) fn raw(&self) -> RawException {
        *self.inner.object
    }
}

/// Most characters of a tag's name that a report prints.
const MAX_NAME: usize = 256;

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        f.write_str("uncaught exception")?;
        if let Some(name) = &inner.name {
            // Names come from the guest: nothing in them may reach a terminal as a command.
            let name: String = name.chars().take(MAX_NAME).collect();
            write!(f, " `{}`", name.escape_debug())?;
        }
        for (n, (ty, slot)) in inner.params.iter().zip(&inner.values).enumerate() {
            f.write_str(if n == 0 { " (" } else { ", " })?;
            let bits = u128::from_le_bytes(*slot);
            match ty {
                ValType::I32 => write!(f, "i32 {}", bits as i32)?,
                ValType::I64 => write!(f, "i64 {}", bits as i64)?,
                ValType::F32 => write!(f, "f32 {}", f32::from_bits(bits as u32))?,
                ValType::F64 => write!(f, "f64 {}", f64::from_bits(bits as u64))?,
                ValType::V128 => write!(f, "v128 {bits:#034x}")?,
                ValType::Ref(_) if bits == 0 => f.write_str("null")?,
                ValType::Ref(_) => f.write_str("reference")?,
            }
        }
        if !inner.params.is_empty() {
            f.write_str(")")?;
        }
        inner.backtrace.fmt(f)
    }
}

impl Error for Exception {}

/// A reference to an exception as compiled code holds it: the place of an object in the store's
/// heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawException(NonZeroU32);

impl From<NonZeroU32> for RawException {
    fn from(bits: NonZeroU32) -> RawException {
        RawException(bits)
    }
}

impl RawException {
    /// The exception behind a reference that is not null.
    pub(super) fn new(bits: u32) -> Option<RawException> {
        NonZeroU32::new(bits).map(RawException)
    }

    pub(super) fn bits(self) -> u32 {
        self.0.get()
    }

    /// Makes an exception with a tag, its values all 0. `None` when there is no room.
    ///
    /// # Safety
    /// `tag` must be a record of `store`.
    pub(super) unsafe fn allocate(
        store: &mut StoreInner,
        tag: *const TagRecord,
    ) -> Option<RawException> {
        // SAFETY: the caller's promise.
        let type_id = unsafe { (*tag).type_id };
        let params = &store.engine.func_type(type_id).params;
        let scan = params.iter().any(|ty| matches!(ty, ValType::Ref(ty) if !ty.heap.is_func()));
        let bytes = u64::from(exception::VALUES) + slots_len(params.len());
        let kind = ObjectKind::Exception;
        let raw = RawException(store.gc_allocate(kind, type_id.number(), bytes, scan)?);
        let place = store.gc_address(raw.0, exception::TAG, 8);
        // SAFETY: the word lies in the new object, at a multiple of 8 bytes.
        unsafe { place.cast::<*const TagRecord>().write(tag) };
        Some(raw)
    }

    /// The tag that it was made with: a record of the store.
    pub(super) fn tag(self, store: &StoreInner) -> *const TagRecord {
        let place = store.gc_address(self.0, exception::TAG, 8);
        // SAFETY: `allocate` wrote it; references that compiled code holds are to such objects.
        unsafe { place.cast::<*const TagRecord>().read() }
    }

    /// The values that it carries, of which there are `len`.
    fn values(self, store: &StoreInner, len: usize) -> Box<[Slot]> {
        let place = store.gc_address(self.0, exception::VALUES, slots_len(len));
        // SAFETY: the slots are accessible (checked above), and no reference to them outlives this.
        unsafe { std::slice::from_raw_parts(place.cast::<Slot>(), len) }.into()
    }

    fn write_values(self, store: &mut StoreInner, values: &[Slot]) {
        let place = store.gc_address(self.0, exception::VALUES, slots_len(values.len()));
        // SAFETY: the slots are accessible (checked above) and part of a new object.
        unsafe { place.cast::<Slot>().copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    }
}

/// Bytes of this many values.
fn slots_len(values: usize) -> u64 {
    values as u64 * u64::from(VALUE_SIZE)
}

/// The exceptions that the host holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    all: Vec<Arc<RawException>>,
    /// How many were left when those that the host let go of were last looked for.
    left: usize,
}

impl Held {
    fn is_held(exception: &Arc<RawException>) -> bool {
        Arc::strong_count(exception) > 1
    }

    pub(super) fn add(&mut self, exception: RawException) -> Arc<RawException> {
        if self.all.len() >= 2 * self.left + 16 {
            self.all.retain(Held::is_held);
            self.left = self.all.len();
        }
        let exception = Arc::new(exception);
        self.all.push(Arc::clone(&exception));
        exception
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = RawException> {
        self.all.iter().filter(|exception| Held::is_held(exception)).map(|exception| **exception)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_let_go_of_is_forgotten() {
        let mut held = Held::default();
        let raw = |n: u32| RawException::new(n << 4).unwrap();
        let kept: Vec<_> = (1..=3).map(|n| held.add(raw(n))).collect();
        for n in 4..10_000 {
            held.add(raw(n));
            assert!(held.all.len() <= 2 * kept.len() + 17);
        }
        let all: Vec<u32> = held.iter().map(RawException::bits).collect();
        assert_eq!(all, [16, 32, 48]);
        drop(kept);
        assert_eq!(held.iter().count(), 0);
    }
}
