//! Arrays.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use wasmparser::Operator;

use super::{Access, Extension, Translator};
use crate::abi::builtins::Builtin;
use crate::abi::gc::{ObjectKind, array_bytes, header};
use crate::abi::trap::TrapKind;
use crate::compile::signature::POINTER;
use crate::compile::trap::trap_code;
use crate::module::index::TypeIndex;
use crate::module::types::{ArrayLayout, ObjectLayout, StorageType};

impl Translator<'_, '_> {
    /// Translates an operator on single elements; `false` if it is another.
    pub(super) fn array(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::ArrayGet { array_type_index } | Operator::ArrayGetU { array_type_index } => {
                self.array_get(array_type_index, Extension::Unsigned);
            }
            Operator::ArrayGetS { array_type_index } => {
                self.array_get(array_type_index, Extension::Signed);
            }
            Operator::ArraySet { array_type_index } => {
                let [array, index, value] = self.pop_n();
                let (storage, layout) = self.element(array_type_index);
                let place = self.element_place(array, index, layout);
                self.store_storage(storage, value, place, Access::Checked);
            }
            Operator::ArrayLen => {
                let array = self.pop();
                let address = self.object_address(array);
                let length = self.array_length(address);
                self.push(length);
            }
            Operator::ArrayNewFixed { array_type_index, array_size } => {
                self.array_new_fixed(array_type_index, array_size);
            }
            _ => return false,
        }
        true
    }

    /// Translates an operator on whole arrays; `false` if it is another.
    pub(super) fn bulk_array(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::ArrayNew { array_type_index } => {
                let [value, length] = self.pop_n();
                let (low, high) = self.element_bits(value);
                let ty = self.number(array_type_index);
                self.push_new(Builtin::gc_array_new, &[ty, length, low, high]);
            }
            Operator::ArrayNewDefault { array_type_index } => {
                let length = self.pop();
                let zero = self.builder.ins().iconst(types::I64, 0);
                let ty = self.number(array_type_index);
                self.push_new(Builtin::gc_array_new, &[ty, length, zero, zero]);
            }
            Operator::ArrayNewData { array_type_index, array_data_index } => {
                self.array_new_from(Builtin::gc_array_new_data, array_type_index, array_data_index);
            }
            Operator::ArrayNewElem { array_type_index, array_elem_index } => {
                self.array_new_from(Builtin::gc_array_new_elem, array_type_index, array_elem_index);
            }
            Operator::ArrayFill { array_type_index } => {
                let [array, start, value, len] = self.pop_n();
                let (low, high) = self.element_bits(value);
                let ty = self.number(array_type_index);
                let args = [ty, array, start, low, high, len];
                self.checked_builtin(Builtin::gc_array_fill, &args);
            }
            Operator::ArrayCopy { array_type_index_dst, .. } => {
                let [to, to_start, from, from_start, len] = self.pop_n();
                // Elements of both types are held in the same way.
                let ty = self.number(array_type_index_dst);
                let args = [ty, to, to_start, from, from_start, len];
                self.checked_builtin(Builtin::gc_array_copy, &args);
            }
            Operator::ArrayInitData { array_type_index, array_data_index } => {
                self.array_init(Builtin::gc_array_init_data, array_type_index, array_data_index);
            }
            Operator::ArrayInitElem { array_type_index, array_elem_index } => {
                self.array_init(Builtin::gc_array_init_elem, array_type_index, array_elem_index);
            }
            _ => return false,
        }
        true
    }

    fn push_new(&mut self, builtin: Builtin, args: &[Value]) {
        // The array's elements will be read at its address.
        self.heap_base();
        let array = self.fallible_builtin(builtin, args);
        self.push(array);
    }

    fn array_new_from(&mut self, builtin: Builtin, ty: u32, segment: u32) {
        let [start, len] = self.pop_n();
        let (ty, segment) = (self.number(ty), self.number(segment));
        self.push_new(builtin, &[ty, segment, start, len]);
    }

    fn array_init(&mut self, builtin: Builtin, ty: u32, segment: u32) {
        let [array, to_start, from_start, len] = self.pop_n();
        let (ty, segment) = (self.number(ty), self.number(segment));
        self.checked_builtin(builtin, &[ty, array, to_start, segment, from_start, len]);
    }

    fn array_new_fixed(&mut self, ty: u32, count: u32) {
        let (storage, layout) = self.element(ty);
        let ty = TypeIndex::from_u32(ty);
        let bytes = array_bytes(layout.size, count);
        let (array, address) = self.allocate(ObjectKind::Array, layout.scan, ty, bytes);
        let length = self.number(count);
        let flags = self.header_flags(Access::Checked);
        self.builder.ins().store(flags, length, address, header::ARRAY_LENGTH as i32);
        let at = self.stack.len() - count as usize;
        for n in 0..count {
            let offset = layout.base + n * layout.size;
            let value = self.stack[at + n as usize];
            self.store_storage(storage, value, (address, offset), Access::Checked);
        }
        self.stack.truncate(at);
        self.push(array);
    }

    fn array_get(&mut self, ty: u32, extension: Extension) {
        let [array, index] = self.pop_n();
        let (storage, layout) = self.element(ty);
        let place = self.element_place(array, index, layout);
        let value = self.load_storage(storage, extension, place, Access::Checked);
        self.push(value);
    }

    /// What an array's elements are and where they lie.
    fn element(&self, ty: u32) -> (StorageType, ArrayLayout) {
        let ty = TypeIndex::from_u32(ty);
        let storage = self.env.module.types[ty].as_array().map(|ty| ty.element.storage);
        match (storage, &self.env.objects[ty]) {
            (Some(storage), Some(ObjectLayout::Array(layout))) => (storage, *layout),
            _ => unreachable!("the validator saw that {ty} is an array type"),
        }
    }

    /// The length of the array at an address; traps for null.
    fn array_length(&mut self, address: Value) -> Value {
        let flags = self.header_flags(Access::Checking(TrapKind::NullArray));
        self.builder.ins().load(types::I32, flags, address, header::ARRAY_LENGTH as i32)
    }

    /// The place of an element; traps if there is none.
    fn element_place(&mut self, array: Value, index: Value, layout: ArrayLayout) -> (Value, u32) {
        let array = self.object_address(array);
        let length = self.array_length(array);
        let outside = self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, index, length);
        self.builder.ins().trapnz(outside, trap_code(TrapKind::ArrayOutOfBounds));
        let index = self.builder.ins().uextend(POINTER, index);
        let shift = i64::from(layout.size.trailing_zeros());
        let scaled = self.builder.ins().ishl_imm_u(index, shift);
        let address = self.builder.ins().iadd(array, scaled);
        // A processor that guesses the check to pass must not read past the array either.
        (self.builder.ins().select_spectre_guard(outside, array, address), layout.base)
    }

    /// An element's bits as the runtime takes them: the lower and the upper half of 128 bits.
    fn element_bits(&mut self, value: Value) -> (Value, Value) {
        let zero = self.builder.ins().iconst(types::I64, 0);
        let flags = MemFlagsData::new();
        let low = match self.builder.func.dfg.value_type(value) {
            types::I32 => self.builder.ins().uextend(types::I64, value),
            types::F32 => {
                let bits = self.builder.ins().bitcast(types::I32, flags, value);
                self.builder.ins().uextend(types::I64, bits)
            }
            types::F64 => self.builder.ins().bitcast(types::I64, flags, value),
            ty if ty.is_vector() => {
                let little = flags.with_endianness(cranelift_codegen::ir::Endianness::Little);
                let lanes = self.builder.ins().bitcast(types::I64X2, little, value);
                let low = self.builder.ins().extractlane(lanes, 0);
                return (low, self.builder.ins().extractlane(lanes, 1));
            }
            _ => value,
        };
        (low, zero)
    }
}
