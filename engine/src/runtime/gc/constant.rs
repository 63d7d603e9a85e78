//! Constant expressions that make objects.

use std::num::NonZeroU32;

use smallvec::SmallVec;

use crate::abi::trap::TrapKind;
use crate::module::index::TypeIndex;
use crate::module::types::{FieldType, ObjectLayout, StorageType};
use crate::module::{ConstExpr, ConstOp};
use crate::runtime::instance::InstanceInner;
use crate::runtime::store::StoreInner;

/// The operands of an expression.
type Stack = SmallVec<[u128; 4]>;

impl StoreInner {
    /// The value of a constant expression as compiled code holds it. Objects that it makes are
    /// pinned.
    ///
    /// # Errors
    /// When there is no room for an object.
    pub(in crate::runtime) fn evaluate(
        &mut self,
        instance: &InstanceInner,
        expr: &ConstExpr,
    ) -> Result<u128, TrapKind> {
        if !expr.allocates() {
            return Ok(instance.evaluate(expr));
        }
        let mut stack = Stack::new();
        for &op in &expr.ops {
            let value = match self.allocating(instance, op, &mut stack)? {
                Some(object) => {
                    self.gc_pin(object);
                    object.get().into()
                }
                None => instance.apply(op, &mut stack),
            };
            stack.push(value);
        }
        Ok(stack.pop().unwrap_or_default())
    }

    /// The object that an operator makes; `None` if it makes none.
    fn allocating(
        &mut self,
        instance: &InstanceInner,
        op: ConstOp,
        stack: &mut Stack,
    ) -> Result<Option<NonZeroU32>, TrapKind> {
        let object = match op {
            ConstOp::StructNew(ty) => {
                let count =
                    instance.module.info().types[ty].as_struct().map_or(0, |s| s.fields.len());
                let operands = take(stack, count);
                self.constant_struct(instance, ty, &operands)?
            }
            ConstOp::StructNewDefault(ty) => self.constant_struct(instance, ty, &[])?,
            ConstOp::ArrayNew(ty) => {
                let operands = take(stack, 2);
                self.constant_array(instance, ty, operands[1] as u32, Elements::All(operands[0]))?
            }
            ConstOp::ArrayNewDefault(ty) => {
                let operands = take(stack, 1);
                self.constant_array(instance, ty, operands[0] as u32, Elements::All(0))?
            }
            ConstOp::ArrayNewFixed(ty, length) => {
                let operands = take(stack, length as usize);
                self.constant_array(instance, ty, length, Elements::Each(&operands))?
            }
            _ => return Ok(None),
        };
        Ok(Some(object))
    }

    /// A structure with these fields, or with every field zero if there are none given.
    fn constant_struct(
        &mut self,
        instance: &InstanceInner,
        ty: TypeIndex,
        operands: &[u128],
    ) -> Result<NonZeroU32, TrapKind> {
        let found = &instance.module.info().types[ty];
        let (Some(ObjectLayout::Struct(layout)), Some(found)) =
            (found.object_layout(), found.as_struct())
        else {
            unreachable!("the check of the image saw that {ty} is a structure type")
        };
        let object = self.new_struct(instance.module.type_id(ty), &layout)?;
        for ((field, &offset), &value) in found.fields.iter().zip(&layout.offsets).zip(operands) {
            self.write_field(object, *field, offset, value);
        }
        Ok(object)
    }

    /// Writes a field of an object.
    pub(super) fn write_field<C>(
        &mut self,
        object: NonZeroU32,
        field: FieldType<C>,
        offset: u32,
        value: u128,
    ) {
        let size = StorageType::size(&field.storage);
        let place = self.gc_address(object, offset, size.into());
        // SAFETY: the place is one of this size within the object.
        unsafe { StoreInner::fill_places(place, size, value, 1) };
    }

    fn constant_array(
        &mut self,
        instance: &InstanceInner,
        ty: TypeIndex,
        length: u32,
        elements: Elements<'_>,
    ) -> Result<NonZeroU32, TrapKind> {
        let Some(ObjectLayout::Array(layout)) = instance.module.info().types[ty].object_layout()
        else {
            unreachable!("the check of the image saw that {ty} is an array type")
        };
        let array = self.new_array(instance.module.type_id(ty), layout, length)?;
        let place = self.array_range(array.get(), layout, 0, length)?;
        // SAFETY: the place was just given for all elements, of which the values are as many.
        unsafe {
            match elements {
                Elements::All(0) => {}
                Elements::All(value) => {
                    StoreInner::fill_places(place, layout.size, value, length);
                }
                Elements::Each(values) => {
                    for (n, &value) in values.iter().enumerate().take(length as usize) {
                        let place = place.add(n * layout.size as usize);
                        StoreInner::fill_places(place, layout.size, value, 1);
                    }
                }
            }
        }
        Ok(array)
    }
}

/// The elements of a new array.
enum Elements<'a> {
    All(u128),
    Each(&'a [u128]),
}

/// The top `count` operands; the check of the image saw that there are so many.
fn take(stack: &mut Stack, count: usize) -> Stack {
    stack.drain(stack.len().saturating_sub(count)..).collect()
}
