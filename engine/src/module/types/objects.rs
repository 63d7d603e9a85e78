//! How structures and arrays lie in the heap: the one place that knows which field has which size.

use super::{ArrayType, CompositeType, MachineType, StorageType, StructType, SubType};
use crate::abi::gc::{array_base, struct_layout};

/// Where the parts of an object of some type lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectLayout {
    /// A structure.
    Struct(StructLayout),
    /// An array.
    Array(ArrayLayout),
}

/// Where a structure's fields lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructLayout {
    /// Byte offset of each field.
    pub offsets: Vec<u32>,
    /// Bytes of the structure.
    pub size: u32,
    /// Whether a field may refer to an object.
    pub scan: bool,
}

/// Where an array's elements lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayLayout {
    /// Byte offset of the first element.
    pub base: u32,
    /// Bytes of an element.
    pub size: u32,
    /// Whether elements may refer to objects.
    pub scan: bool,
}

impl<C> StorageType<C> {
    /// Bytes that a value takes in an object.
    #[must_use]
    pub fn size(&self) -> u32 {
        match self {
            StorageType::I8 => 1,
            StorageType::I16 => 2,
            StorageType::Val(ty) => match ty.machine() {
                MachineType::I32 | MachineType::F32 => 4,
                MachineType::I64 | MachineType::F64 => 8,
                MachineType::V128 => 16,
            },
        }
    }

    /// Whether it may hold a reference to an object: every reference that is not to a function.
    /// A reference of the host may be a converted one.
    #[must_use]
    pub fn may_refer_to_object(&self) -> bool {
        matches!(self, StorageType::Val(super::ValType::Ref(ty)) if !ty.heap.is_func())
    }
}

impl<C> StructType<C> {
    /// Where the fields lie.
    #[must_use]
    pub fn layout(&self) -> StructLayout {
        let (offsets, size) = struct_layout(self.fields.iter().map(|field| field.storage.size()));
        let scan = self.fields.iter().any(|field| field.storage.may_refer_to_object());
        StructLayout { offsets, size, scan }
    }
}

impl<C> ArrayType<C> {
    /// Where the elements lie.
    #[must_use]
    pub fn layout(&self) -> ArrayLayout {
        let size = self.element.storage.size();
        ArrayLayout {
            base: array_base(size),
            size,
            scan: self.element.storage.may_refer_to_object(),
        }
    }
}

impl<C> SubType<C> {
    /// The layout of its objects; `None` for a function type.
    #[must_use]
    pub fn object_layout(&self) -> Option<ObjectLayout> {
        match &self.composite {
            CompositeType::Func(_) => None,
            CompositeType::Struct(ty) => Some(ObjectLayout::Struct(ty.layout())),
            CompositeType::Array(ty) => Some(ObjectLayout::Array(ty.layout())),
        }
    }
}
