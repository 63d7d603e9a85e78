//! Structures.

use wasmparser::Operator;

use super::{Access, Extension, Translator};
use crate::abi::gc::ObjectKind;
use crate::abi::trap::TrapKind;
use crate::module::index::TypeIndex;
use crate::module::types::{ObjectLayout, StorageType, StructLayout};

impl<'a> Translator<'a, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn structure(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::StructNew { struct_type_index } => self.struct_new(struct_type_index),
            Operator::StructNewDefault { struct_type_index } => {
                let (ty, layout) = self.struct_layout(struct_type_index);
                let size = layout.size.into();
                let (reference, _) = self.allocate(ObjectKind::Struct, layout.scan, ty, size);
                self.push(reference);
            }
            Operator::StructGet { struct_type_index, field_index }
            | Operator::StructGetU { struct_type_index, field_index } => {
                self.struct_get(struct_type_index, field_index, Extension::Unsigned);
            }
            Operator::StructGetS { struct_type_index, field_index } => {
                self.struct_get(struct_type_index, field_index, Extension::Signed);
            }
            Operator::StructSet { struct_type_index, field_index } => {
                let value = self.pop();
                let reference = self.pop();
                let (storage, offset) = self.field(struct_type_index, field_index);
                let address = self.object_address(reference);
                let access = Access::Checking(TrapKind::NullStruct);
                self.store_storage(storage, value, (address, offset), access);
            }
            _ => return false,
        }
        true
    }

    fn struct_new(&mut self, ty: u32) {
        let (ty, layout) = self.struct_layout(ty);
        let size = layout.size.into();
        let (reference, address) = self.allocate(ObjectKind::Struct, layout.scan, ty, size);
        let at = self.stack.len() - layout.offsets.len();
        let fields = self.env.module.types[ty].as_struct().map_or(&[][..], |ty| &ty.fields);
        for (n, (field, &offset)) in fields.iter().zip(&layout.offsets).enumerate() {
            let value = self.stack[at + n];
            self.store_storage(field.storage, value, (address, offset), Access::Checked);
        }
        self.stack.truncate(at);
        self.push(reference);
    }

    fn struct_get(&mut self, ty: u32, field: u32, extension: Extension) {
        let reference = self.pop();
        let (storage, offset) = self.field(ty, field);
        let address = self.object_address(reference);
        let access = Access::Checking(TrapKind::NullStruct);
        let value = self.load_storage(storage, extension, (address, offset), access);
        self.push(value);
    }

    fn struct_layout(&self, ty: u32) -> (TypeIndex, &'a StructLayout) {
        let ty = TypeIndex::from_u32(ty);
        match &self.env.objects[ty] {
            Some(ObjectLayout::Struct(layout)) => (ty, layout),
            _ => unreachable!("the validator saw that {ty} is a structure type"),
        }
    }

    /// What a field holds and where.
    fn field(&self, ty: u32, field: u32) -> (StorageType, u32) {
        let (ty, layout) = self.struct_layout(ty);
        match self.env.module.types[ty].as_struct() {
            Some(ty) => (ty.fields[field as usize].storage, layout.offsets[field as usize]),
            None => unreachable!("a type with a structure's layout is a structure type"),
        }
    }
}
