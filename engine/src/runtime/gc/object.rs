//! Objects as the runtime makes and fills them.

use std::num::NonZeroU32;
use std::ptr;

use crate::abi::gc::{ObjectKind, array_bytes, header};
use crate::abi::trap::TrapKind;
use crate::module::types::{ArrayLayout, StructLayout};
use crate::runtime::registry::TypeId;
use crate::runtime::store::StoreInner;

/// A place for some bytes of an object, checked to lie within it.
type Place = *mut u8;

impl StoreInner {
    /// A new structure with every field zero.
    pub(super) fn new_struct(
        &mut self,
        ty: TypeId,
        layout: &StructLayout,
    ) -> Result<NonZeroU32, TrapKind> {
        self.gc_allocate(ObjectKind::Struct, ty.number(), layout.size.into(), layout.scan)
            .ok_or(TrapKind::OutOfMemory)
    }

    /// A new array with every element zero.
    pub(super) fn new_array(
        &mut self,
        ty: TypeId,
        layout: ArrayLayout,
        length: u32,
    ) -> Result<NonZeroU32, TrapKind> {
        let bytes = array_bytes(layout.size, length);
        let array = self
            .gc_allocate(ObjectKind::Array, ty.number(), bytes, layout.scan)
            .ok_or(TrapKind::OutOfMemory)?;
        let place = self.gc_address(array, header::ARRAY_LENGTH, 4).cast::<u32>();
        // SAFETY: the place lies within the new object and is aligned.
        unsafe { place.write(length) };
        Ok(array)
    }

    /// The number of elements of an array.
    pub(super) fn array_length(&self, array: NonZeroU32) -> u32 {
        // SAFETY: every array has a length, which lies within it and is aligned.
        unsafe { self.gc_address(array, header::ARRAY_LENGTH, 4).cast::<u32>().read() }
    }

    /// The place of elements `start..start + len`; the trap for null or when there are not so many.
    pub(super) fn array_range(
        &self,
        array: u32,
        layout: ArrayLayout,
        start: u32,
        len: u32,
    ) -> Result<Place, TrapKind> {
        let array = NonZeroU32::new(array).ok_or(TrapKind::NullArray)?;
        let end = u64::from(start) + u64::from(len);
        if end > u64::from(self.array_length(array)) {
            return Err(TrapKind::ArrayOutOfBounds);
        }
        let (size, len) = (u64::from(layout.size), u64::from(len));
        // An array with so many elements has its end within the heap's 4 GiB.
        let offset = u64::from(layout.base) + size * u64::from(start);
        Ok(self.gc_address(array, offset as u32, size * len))
    }

    /// Writes the lower bytes of a value to each of `count` adjacent places of `size` bytes.
    ///
    /// # Safety
    /// `place` must be what [`array_range`](Self::array_range) gave for `count` elements of `size`
    /// bytes, or a field's of this size, and nothing was allocated since.
    pub(super) unsafe fn fill_places(place: Place, size: u32, value: u128, count: u32) {
        let count = count as usize;
        // SAFETY: the places lie within an object (the caller's promise), aligned to their size.
        unsafe {
            match size {
                1 => ptr::write_bytes(place, value as u8, count),
                2 => (0..count).for_each(|n| place.cast::<u16>().add(n).write(value as u16)),
                4 => (0..count).for_each(|n| place.cast::<u32>().add(n).write(value as u32)),
                8 => (0..count).for_each(|n| place.cast::<u64>().add(n).write(value as u64)),
                _ => (0..count).for_each(|n| place.cast::<u128>().add(n).write(value)),
            }
        }
    }

    /// Reads the value in a place of `size` bytes, zero-extended.
    ///
    /// # Safety
    /// As [`fill_places`](Self::fill_places), for one place.
    pub(super) unsafe fn read_place(place: Place, size: u32) -> u128 {
        // SAFETY: the place lies within an object (the caller's promise), aligned to its size.
        unsafe {
            match size {
                1 => place.read().into(),
                2 => place.cast::<u16>().read().into(),
                4 => place.cast::<u32>().read().into(),
                8 => place.cast::<u64>().read().into(),
                _ => place.cast::<u128>().read(),
            }
        }
    }
}
