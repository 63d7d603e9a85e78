//! Structures and arrays as the host sees them.

use std::num::NonZeroU32;

use super::roots::{Reference, release};
use crate::abi::gc::{ObjectKind, header};
use crate::module::types::{ArrayLayout, StructLayout};
use crate::runtime::registry::TypeId;
use crate::runtime::store::{AsStore, StoreInner, get, get_mut};
use crate::runtime::types::{FieldType, HeapType, StorageType};
use crate::runtime::val::{AnyRef, Val};

/// Why an object cannot be made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ObjectError {
    #[error("{0} is no structure type")]
    NotStruct(TypeId),
    #[error("{0} is no array type")]
    NotArray(TypeId),
    #[error("structure has {fields} fields, but {values} values are given")]
    FieldCount { fields: usize, values: usize },
    #[error("value does not have the field's or element's type")]
    Type,
    #[error("field or element is immutable")]
    Immutable,
    #[error("index {index} is outside of the object's {size} fields or elements")]
    OutOfBounds { index: u32, size: u32 },
    #[error("no room is left in the heap of objects; raise `max_gc_heap_bytes` of the store")]
    OutOfMemory,
}

/// A structure of a store that is not null: core specification, "Structure Instances".
///
/// Like every reference to an object, the handle keeps it alive until it is released, or until the
/// host function returns that got it; using it later panics.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings};
/// use coracle_engine::runtime::{Engine, Linker, Module, Store, StructRef, Val};
/// let wat = r#"(module
///     (type $point (struct (field i32) (field (mut i64))))
///     (func (export "sum") (param (ref $point)) (result i64)
///         (i64.add (i64.extend_i32_s (struct.get $point 0 (local.get 0)))
///                  (struct.get $point 1 (local.get 0)))))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let mut store = Store::new(&engine)?;
/// let instance = Linker::new(&engine).instantiate(&mut store, &module)?;
/// let sum = instance.func(&store, "sum").ok_or("no sum")?;
/// let point = sum.ty(&store).params[0].as_defined().ok_or("no defined type")?;
/// let point = StructRef::new(&mut store, point, &[Val::I32(40), Val::I64(1)])?;
/// point.set_field(&mut store, 1, Val::I64(2))?;
/// assert_eq!(sum.invoke(&mut store, &[point.into()])?, [Val::I64(42)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StructRef(Reference);

/// An array of a store that is not null. As for [`StructRef`], the handle keeps it alive. Core
/// specification, "Array Instances".
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings};
/// use coracle_engine::runtime::{Engine, Linker, Module, Store, Val};
/// let wat = r#"(module
///     (type $bytes (array (mut i8)))
///     (func (export "make") (param i32) (result (ref $bytes))
///         (array.new $bytes (i32.const 0x1ff) (local.get 0))))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let mut store = Store::new(&engine)?;
/// let instance = Linker::new(&engine).instantiate(&mut store, &module)?;
/// let make = instance.func(&store, "make").ok_or("no make")?;
/// let results = make.invoke(&mut store, &[Val::I32(3)])?;
/// let Val::AnyRef(Some(any)) = results[0] else { panic!("null") };
/// let bytes = any.as_array(&store).ok_or("no array")?;
/// bytes.set(&mut store, 2, Val::I32(7))?;
/// assert_eq!(bytes.len(&store), 3);
/// assert_eq!(bytes.get(&store, 0)?, Val::I32(0xff), "packed to a byte");
/// assert!(bytes.get(&store, 3).is_err(), "outside");
/// bytes.release(&mut store);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArrayRef(Reference);

impl StructRef {
    /// Makes a structure of a type with these fields.
    ///
    /// # Errors
    /// When it is no structure type, the values do not fit its fields, or there is no room.
    pub fn new(
        store: &mut impl AsStore,
        ty: TypeId,
        fields: &[Val],
    ) -> Result<StructRef, ObjectError> {
        let inner = get_mut(store);
        let engine = inner.engine.clone();
        let found = engine.types().get(ty).as_struct().ok_or(ObjectError::NotStruct(ty))?;
        let (expected, values) = (found.fields.len(), fields.len());
        if expected != values {
            return Err(ObjectError::FieldCount { fields: expected, values });
        }
        if !fields.iter().zip(&found.fields).all(|(value, field)| fits(*value, *field, inner)) {
            return Err(ObjectError::Type);
        }
        inner.cover_types();
        let layout = found.layout();
        let object = inner.new_struct(ty, &layout).map_err(|_| ObjectError::OutOfMemory)?;
        for ((value, field), &offset) in fields.iter().zip(&found.fields).zip(&layout.offsets) {
            inner.write_field(object, *field, offset, value.to_raw(inner));
        }
        Ok(StructRef(inner.reference(object)))
    }

    /// Its type.
    ///
    /// # Panics
    /// When the handle is no longer good, or of another store; so do all other methods.
    #[must_use]
    pub fn ty(self, store: &impl AsStore) -> TypeId {
        let inner = get(store);
        inner.type_of(inner.raw_reference(self.0))
    }

    /// The value of its n-th field, packed ones zero-extended to i32.
    ///
    /// # Errors
    /// When it has no such field.
    pub fn field(self, store: &impl AsStore, n: u32) -> Result<Val, ObjectError> {
        let inner = get(store);
        let (object, field, offset) = self.place(inner, n)?;
        Ok(inner.read_storage(object, field.storage, offset))
    }

    /// Changes its n-th field. Packed fields take the lower bits of an i32.
    ///
    /// # Errors
    /// When it has no such field, the field is immutable or of another type.
    pub fn set_field(
        self,
        store: &mut impl AsStore,
        n: u32,
        value: Val,
    ) -> Result<(), ObjectError> {
        let inner = get_mut(store);
        let (object, field, offset) = self.place(inner, n)?;
        check_set(value, field, inner)?;
        inner.write_field(object, field, offset, value.to_raw(inner));
        Ok(())
    }

    fn place(
        self,
        store: &StoreInner,
        n: u32,
    ) -> Result<(NonZeroU32, FieldType, u32), ObjectError> {
        let object = store.raw_reference(self.0);
        let ty = store.type_of(object);
        let found = store.engine.types().get(ty).as_struct().ok_or(ObjectError::NotStruct(ty))?;
        let StructLayout { offsets, .. } = found.layout();
        match (found.fields.get(n as usize), offsets.get(n as usize)) {
            (Some(field), Some(&offset)) => Ok((object, *field, offset)),
            _ => Err(ObjectError::OutOfBounds { index: n, size: offsets.len() as u32 }),
        }
    }

    /// The same as an `anyref`.
    #[must_use]
    pub fn to_any(self) -> AnyRef {
        AnyRef(self.0)
    }

    /// Lets go of the object: the handle, and every copy of it, must not be used any more.
    pub fn release(self, store: &mut impl AsStore) {
        release(store, self.0);
    }
}

impl ArrayRef {
    /// Makes an array of a type with `length` elements of this value.
    ///
    /// # Errors
    /// When it is no array type, the value has another type, or there is no room.
    pub fn new(
        store: &mut impl AsStore,
        ty: TypeId,
        value: Val,
        length: u32,
    ) -> Result<ArrayRef, ObjectError> {
        let inner = get_mut(store);
        let (element, layout) = array_type(inner, ty)?;
        if !fits(value, element, inner) {
            return Err(ObjectError::Type);
        }
        inner.cover_types();
        let array = inner.new_array(ty, layout, length).map_err(|_| ObjectError::OutOfMemory)?;
        let value = value.to_raw(inner);
        for n in 0..length {
            inner.write_field(array, element, layout.base + n * layout.size, value);
        }
        Ok(ArrayRef(inner.reference(array)))
    }

    /// Its type.
    ///
    /// # Panics
    /// When the handle is no longer good, or of another store; so do all other methods.
    #[must_use]
    pub fn ty(self, store: &impl AsStore) -> TypeId {
        let inner = get(store);
        inner.type_of(inner.raw_reference(self.0))
    }

    /// How many elements it has.
    #[must_use]
    pub fn len(self, store: &impl AsStore) -> u32 {
        let inner = get(store);
        inner.array_length(inner.raw_reference(self.0))
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(self, store: &impl AsStore) -> bool {
        self.len(store) == 0
    }

    /// The value of its n-th element, packed ones zero-extended to i32.
    ///
    /// # Errors
    /// When it has no such element.
    pub fn get(self, store: &impl AsStore, n: u32) -> Result<Val, ObjectError> {
        let inner = get(store);
        let (array, element, offset) = self.place(inner, n)?;
        Ok(inner.read_storage(array, element.storage, offset))
    }

    /// Changes its n-th element. Packed elements take the lower bits of an i32.
    ///
    /// # Errors
    /// When it has no such element, or elements are immutable or of another type.
    pub fn set(self, store: &mut impl AsStore, n: u32, value: Val) -> Result<(), ObjectError> {
        let inner = get_mut(store);
        let (array, element, offset) = self.place(inner, n)?;
        check_set(value, element, inner)?;
        inner.write_field(array, element, offset, value.to_raw(inner));
        Ok(())
    }

    fn place(
        self,
        store: &StoreInner,
        n: u32,
    ) -> Result<(NonZeroU32, FieldType, u32), ObjectError> {
        let array = store.raw_reference(self.0);
        let (element, layout) = array_type(store, store.type_of(array))?;
        let size = store.array_length(array);
        if n >= size {
            return Err(ObjectError::OutOfBounds { index: n, size });
        }
        Ok((array, element, layout.base + n * layout.size))
    }

    /// The same as an `anyref`.
    #[must_use]
    pub fn to_any(self) -> AnyRef {
        AnyRef(self.0)
    }

    /// Lets go of the object: the handle, and every copy of it, must not be used any more.
    pub fn release(self, store: &mut impl AsStore) {
        release(store, self.0);
    }
}

impl AnyRef {
    /// The structure that it refers to, if it does.
    ///
    /// # Panics
    /// When the handle is no longer good, or of another store.
    #[must_use]
    pub fn as_struct(self, store: &impl AsStore) -> Option<StructRef> {
        self.is_object(get(store), ObjectKind::Struct).then_some(StructRef(self.0))
    }

    /// The array that it refers to, if it does.
    ///
    /// # Panics
    /// When the handle is no longer good, or of another store.
    #[must_use]
    pub fn as_array(self, store: &impl AsStore) -> Option<ArrayRef> {
        self.is_object(get(store), ObjectKind::Array).then_some(ArrayRef(self.0))
    }

    fn is_object(self, store: &StoreInner, kind: ObjectKind) -> bool {
        let raw = store.raw_reference(self.0);
        raw.get() & 0b11 == 0 && store.kind_of(raw) == kind as u32
    }

    /// The most precise type.
    pub(in crate::runtime) fn heap_type(self, store: &StoreInner) -> HeapType {
        let raw = store.raw_reference(self.0);
        match raw.get() & 0b11 {
            0 if store.kind_of(raw) == ObjectKind::Array as u32 => {
                HeapType::ConcreteArray(store.type_of(raw))
            }
            0 => HeapType::ConcreteStruct(store.type_of(raw)),
            0b10 => HeapType::Any,
            _ => HeapType::I31,
        }
    }
}

macro_rules! conversions {
    ($($ty:ident)*) => {$(
        impl From<$ty> for AnyRef {
            fn from(object: $ty) -> AnyRef { object.to_any() }
        }

        impl From<$ty> for Val {
            fn from(object: $ty) -> Val { Val::AnyRef(Some(object.to_any())) }
        }
    )*};
}

conversions!(StructRef ArrayRef);

impl StoreInner {
    fn header_word(&self, object: NonZeroU32, offset: u32) -> u32 {
        // SAFETY: every object has a header, which lies within it and is aligned.
        unsafe { self.gc_address(object, offset, 4).cast::<u32>().read() }
    }

    fn kind_of(&self, object: NonZeroU32) -> u32 {
        self.header_word(object, header::KIND) & header::KIND_MASK
    }

    fn type_of(&self, object: NonZeroU32) -> TypeId {
        TypeId::from_number(self.header_word(object, header::TYPE_ID))
    }

    fn read_storage(&self, object: NonZeroU32, storage: StorageType, offset: u32) -> Val {
        let size = storage.size();
        let place = self.gc_address(object, offset, size.into());
        // SAFETY: the place is one of this size within the object.
        let raw = unsafe { StoreInner::read_place(place, size) };
        match storage {
            StorageType::I8 | StorageType::I16 => Val::I32(raw as i32),
            // SAFETY: the value was written by this store's code or from a value of its host.
            StorageType::Val(ty) => unsafe { Val::from_raw(raw, ty, self) },
        }
    }
}

fn array_type(store: &StoreInner, ty: TypeId) -> Result<(FieldType, ArrayLayout), ObjectError> {
    let found = store.engine.types().get(ty).as_array().ok_or(ObjectError::NotArray(ty))?;
    Ok((found.element, found.layout()))
}

/// Whether a value may be stored in a field.
fn fits(value: Val, field: FieldType, store: &StoreInner) -> bool {
    match field.storage {
        StorageType::I8 | StorageType::I16 => matches!(value, Val::I32(_)),
        StorageType::Val(ty) => value.matches(ty, store),
    }
}

fn check_set(value: Val, field: FieldType, store: &StoreInner) -> Result<(), ObjectError> {
    if !field.mutable {
        return Err(ObjectError::Immutable);
    }
    if fits(value, field, store) { Ok(()) } else { Err(ObjectError::Type) }
}
