//! The bodies of the runtime calls on objects.
//!
//! Every bounds check comes before any write. A new object is on no list of roots while it is
//! filled: nothing is allocated meanwhile.

use std::num::NonZeroU32;
use std::ptr;

use crate::abi::gc::{ObjectKind, header};
use crate::abi::trap::TrapKind;
use crate::module::index::{DataIndex, ElemIndex, TypeIndex};
use crate::module::types::{ArrayLayout, ArrayType};
use crate::runtime::builtins::{Ctx, shared_parts, usize_range};
use crate::runtime::instance::InstanceInner;
use crate::runtime::registry::TypeId;
use crate::runtime::store::StoreInner;
use crate::runtime::trap::Pending;

/// An array type of a module and what follows from it.
struct Array {
    id: TypeId,
    layout: ArrayLayout,
}

impl Array {
    fn of(instance: &InstanceInner, ty: u32) -> Array {
        let ty = TypeIndex::from_u32(ty);
        match instance.module.info().types[ty].as_array().map(ArrayType::layout) {
            Some(layout) => Array { id: instance.module.type_id(ty), layout },
            None => unreachable!("compiled code makes arrays of array types"),
        }
    }
}

/// The reference of a new object, or 0 with a pending trap.
fn object(store: &mut StoreInner, outcome: Result<NonZeroU32, TrapKind>) -> u32 {
    match outcome {
        Ok(object) => object.get(),
        Err(kind) => {
            store.pending = Some(Pending::Trap(kind));
            0
        }
    }
}

fn status(store: &mut StoreInner, outcome: Result<(), TrapKind>) -> u32 {
    match outcome {
        Ok(()) => 0,
        Err(kind) => {
            store.pending = Some(Pending::Trap(kind));
            1
        }
    }
}

// SAFETY of all functions below: as in the other runtime calls, compiled code passes its own
// context and waits, indices come from validated code, and references are null or of objects of
// the types that validation says.

pub(in crate::runtime) unsafe extern "C" fn gc_allocate(
    ctx: Ctx,
    kind: u32,
    type_id: u32,
    bytes: u64,
) -> u32 {
    // SAFETY: see above.
    let (_, store) = unsafe { shared_parts(ctx) };
    let scan = kind & header::SCAN != 0;
    let kind = match kind & header::KIND_MASK {
        kind if kind == ObjectKind::Struct as u32 => ObjectKind::Struct,
        kind if kind == ObjectKind::Array as u32 => ObjectKind::Array,
        _ => ObjectKind::Exception,
    };
    let outcome = store.gc_allocate(kind, type_id, bytes, scan).ok_or(TrapKind::OutOfMemory);
    object(store, outcome)
}

pub(in crate::runtime) unsafe extern "C" fn gc_array_new(
    ctx: Ctx,
    ty: u32,
    length: u32,
    low: u64,
    high: u64,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { shared_parts(ctx) };
    let Array { id, layout } = Array::of(instance, ty);
    let value = u128::from(high) << 64 | u128::from(low);
    let outcome = new_filled(store, id, layout, length, value);
    object(store, outcome)
}

fn new_filled(
    store: &mut StoreInner,
    id: TypeId,
    layout: ArrayLayout,
    length: u32,
    value: u128,
) -> Result<NonZeroU32, TrapKind> {
    // A reference in `value` is still needed, so it lies in a frame or register that a collection
    // searches.
    let array = store.new_array(id, layout, length)?;
    if value != 0 {
        let place = store.array_range(array.get(), layout, 0, length)?;
        // SAFETY: the place was just given for all elements.
        unsafe { StoreInner::fill_places(place, layout.size, value, length) };
    }
    Ok(array)
}

pub(in crate::runtime) unsafe extern "C" fn gc_array_new_data(
    ctx: Ctx,
    ty: u32,
    data: u32,
    src: u32,
    length: u32,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { shared_parts(ctx) };
    let Array { id, layout } = Array::of(instance, ty);
    let outcome = data_range(instance, data, src, length, layout)
        .map(|_| ())
        .and_then(|()| store.new_array(id, layout, length));
    let outcome = outcome.and_then(|array| {
        init_data(store, instance, array.get(), 0, data, src, length, layout).map(|()| array)
    });
    object(store, outcome)
}

pub(in crate::runtime) unsafe extern "C" fn gc_array_new_elem(
    ctx: Ctx,
    ty: u32,
    elem: u32,
    src: u32,
    length: u32,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { shared_parts(ctx) };
    let Array { id, layout } = Array::of(instance, ty);
    let elem = ElemIndex::from_u32(elem);
    let in_bounds = instance.elements(elem, src, length).map(|_| ());
    let outcome = in_bounds
        .ok_or(TrapKind::TableOutOfBounds)
        .and_then(|()| store.new_array(id, layout, length));
    let outcome = outcome.and_then(|array| {
        init_elem(store, instance, array.get(), 0, (elem, src, length), layout).map(|()| array)
    });
    object(store, outcome)
}

pub(in crate::runtime) unsafe extern "C" fn gc_array_fill(
    ctx: Ctx,
    ty: u32,
    array: u32,
    dst: u32,
    low: u64,
    high: u64,
    len: u32,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { shared_parts(ctx) };
    let Array { layout, .. } = Array::of(instance, ty);
    let value = u128::from(high) << 64 | u128::from(low);
    let outcome = store.array_range(array, layout, dst, len).map(|place| {
        // SAFETY: the place was just given for these elements.
        unsafe { StoreInner::fill_places(place, layout.size, value, len) };
    });
    status(store, outcome)
}

pub(in crate::runtime) unsafe extern "C" fn gc_array_copy(
    ctx: Ctx,
    ty: u32,
    to: u32,
    dst: u32,
    from: u32,
    src: u32,
    len: u32,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { shared_parts(ctx) };
    let Array { layout, .. } = Array::of(instance, ty);
    let outcome = match (NonZeroU32::new(to), NonZeroU32::new(from)) {
        (Some(_), Some(_)) => copy(store, layout, (to, dst), (from, src), len),
        _ => Err(TrapKind::NullArray),
    };
    status(store, outcome)
}

fn copy(
    store: &StoreInner,
    layout: ArrayLayout,
    (to, dst): (u32, u32),
    (from, src): (u32, u32),
    len: u32,
) -> Result<(), TrapKind> {
    let to = store.array_range(to, layout, dst, len)?;
    let from = store.array_range(from, layout, src, len)?;
    // SAFETY: both ranges lie within objects and were just checked; they may overlap.
    unsafe { ptr::copy(from, to, layout.size as usize * len as usize) };
    Ok(())
}

pub(in crate::runtime) unsafe extern "C" fn gc_array_init_data(
    ctx: Ctx,
    ty: u32,
    array: u32,
    dst: u32,
    data: u32,
    src: u32,
    len: u32,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { shared_parts(ctx) };
    let Array { layout, .. } = Array::of(instance, ty);
    let outcome = init_data(store, instance, array, dst, data, src, len, layout);
    status(store, outcome)
}

/// The bytes of a data segment for `len` elements.
fn data_range(
    instance: &InstanceInner,
    data: u32,
    src: u32,
    len: u32,
    layout: ArrayLayout,
) -> Result<&[u8], TrapKind> {
    let bytes = u64::from(len) * u64::from(layout.size);
    let range = usize_range(u64::from(src), bytes);
    instance.data(DataIndex::from_u32(data)).get(range).ok_or(TrapKind::MemoryOutOfBounds)
}

#[allow(clippy::too_many_arguments, reason = "the operator's operands and immediates")]
fn init_data(
    store: &StoreInner,
    instance: &InstanceInner,
    array: u32,
    dst: u32,
    data: u32,
    src: u32,
    len: u32,
    layout: ArrayLayout,
) -> Result<(), TrapKind> {
    let place = store.array_range(array, layout, dst, len)?;
    let bytes = data_range(instance, data, src, len, layout)?;
    // SAFETY: the place was just given for as many bytes; segments lie outside of the heap.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    Ok(())
}

pub(in crate::runtime) unsafe extern "C" fn gc_array_init_elem(
    ctx: Ctx,
    ty: u32,
    array: u32,
    dst: u32,
    elem: u32,
    src: u32,
    len: u32,
) -> u32 {
    // SAFETY: see above.
    let (instance, store) = unsafe { shared_parts(ctx) };
    let Array { layout, .. } = Array::of(instance, ty);
    let segment = (ElemIndex::from_u32(elem), src, len);
    let outcome = init_elem(store, instance, array, dst, segment, layout);
    status(store, outcome)
}

fn init_elem(
    store: &StoreInner,
    instance: &InstanceInner,
    array: u32,
    dst: u32,
    (elem, src, len): (ElemIndex, u32, u32),
    layout: ArrayLayout,
) -> Result<(), TrapKind> {
    let place = store.array_range(array, layout, dst, len)?;
    let values = instance.elements(elem, src, len).ok_or(TrapKind::TableOutOfBounds)?;
    for (n, value) in values.enumerate() {
        // SAFETY: the place was just given for as many elements; nothing is allocated meanwhile.
        unsafe {
            let place = place.add(n * layout.size as usize);
            StoreInner::fill_places(place, layout.size, value.into(), 1);
        }
    }
    Ok(())
}
