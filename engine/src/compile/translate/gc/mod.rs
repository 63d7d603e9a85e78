//! Structures, arrays, `i31`, casts: the operators of the garbage collection proposal.
//!
//! An object's address is the heap's base, a constant of the instance, plus the reference. Whether
//! a reference is null is not compared: what lies at null's fields is never accessible, and the
//! fault becomes the trap. Objects never move and references may be anywhere, so nothing has to be
//! written down at calls.

mod alloc;
mod array;
mod cast;
mod structure;

use std::sync::atomic::Ordering;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Value, types};
use wasmparser::Operator;

use super::Translator;
use crate::abi::layout::CTX_GC_HEAP;
use crate::abi::trap::TrapKind;
use crate::compile::CompileError;
use crate::compile::signature::{POINTER, value_type};
use crate::compile::trap::trap_code;
use crate::module::types::StorageType;

/// Whether an access may be the first to an object.
#[derive(Clone, Copy)]
enum Access {
    /// The reference may be null, which traps in this way.
    Checking(TrapKind),
    /// An access before has shown that there is an object.
    Checked,
}

/// How a packed field is widened.
#[derive(Clone, Copy)]
enum Extension {
    Signed,
    /// Also for fields that are not packed.
    Unsigned,
}

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn gc(&mut self, op: &Operator<'_>) -> Result<bool, CompileError> {
        Ok(self.small_reference(op)
            || self.structure(op)
            || self.array(op)
            || self.bulk_array(op)
            || self.cast(op)?)
    }

    /// `i31`, comparison, conversions.
    fn small_reference(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::RefI31 => {
                let value = self.pop();
                let shifted = self.builder.ins().ishl_imm_u(value, 1);
                let reference = self.builder.ins().bor_imm_u(shifted, 1);
                self.push(reference);
            }
            Operator::I31GetS => {
                let reference = self.pop_i31();
                let value = self.builder.ins().sshr_imm_u(reference, 1);
                self.push(value);
            }
            Operator::I31GetU => {
                let reference = self.pop_i31();
                let value = self.builder.ins().ushr_imm_u(reference, 1);
                self.push(value);
            }
            Operator::RefEq => {
                let [left, right] = self.pop_n();
                let same = self.builder.ins().icmp(IntCC::Equal, left, right);
                let same = self.builder.ins().uextend(types::I32, same);
                self.push(same);
            }
            // A reference is the same in both hierarchies.
            Operator::AnyConvertExtern | Operator::ExternConvertAny => {}
            _ => return false,
        }
        true
    }

    fn pop_i31(&mut self) -> Value {
        let reference = self.pop();
        self.builder.ins().trapz(reference, trap_code(TrapKind::NullI31));
        reference
    }

    /// The heap's base.
    fn heap_base(&mut self) -> Value {
        // Contexts hold it only if the module says that it is used.
        self.env.uses_objects.store(true, Ordering::Relaxed);
        self.load_constant(POINTER, self.ctx, CTX_GC_HEAP)
    }

    /// The address of an object.
    fn object_address(&mut self, reference: Value) -> Value {
        let base = self.heap_base();
        let offset = self.builder.ins().uextend(POINTER, reference);
        self.builder.ins().iadd(base, offset)
    }

    fn access_flags(&self, access: Access) -> MemFlagsData {
        let flags = match access {
            Access::Checking(kind) => {
                MemFlagsData::new().with_aligned().with_trap_code(Some(trap_code(kind)))
            }
            Access::Checked => MemFlagsData::trusted(),
        };
        flags.with_endianness(Endianness::Little)
    }

    /// Flags of an access to a field or element.
    fn field_flags(&self, access: Access) -> MemFlagsData {
        self.access_flags(access).with_alias_region(Some(self.regions.objects))
    }

    /// Flags of an access to a header or length, which only allocation writes.
    fn header_flags(&self, access: Access) -> MemFlagsData {
        self.access_flags(access).with_alias_region(Some(self.regions.headers))
    }

    /// Loads a field or element as wasm's stack holds it.
    fn load_storage(
        &mut self,
        storage: StorageType,
        extension: Extension,
        (address, offset): (Value, u32),
        access: Access,
    ) -> Value {
        let flags = self.field_flags(access);
        let offset = offset as i32;
        let ins = self.builder.ins();
        match (storage, extension) {
            (StorageType::I8, Extension::Signed) => ins.sload8(types::I32, flags, address, offset),
            (StorageType::I8, Extension::Unsigned) => {
                ins.uload8(types::I32, flags, address, offset)
            }
            (StorageType::I16, Extension::Signed) => {
                ins.sload16(types::I32, flags, address, offset)
            }
            (StorageType::I16, Extension::Unsigned) => {
                ins.uload16(types::I32, flags, address, offset)
            }
            (StorageType::Val(ty), _) => ins.load(value_type(ty), flags, address, offset),
        }
    }

    /// Stores what wasm's stack holds to a field or element.
    fn store_storage(
        &mut self,
        storage: StorageType,
        value: Value,
        (address, offset): (Value, u32),
        access: Access,
    ) {
        let flags = self.field_flags(access);
        let offset = offset as i32;
        match storage {
            StorageType::I8 => self.builder.ins().istore8(flags, value, address, offset),
            StorageType::I16 => self.builder.ins().istore16(flags, value, address, offset),
            StorageType::Val(_) => self.builder.ins().store(flags, value, address, offset),
        };
    }
}
