//! References and globals.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Endianness, InstBuilder, Value, types};
use cranelift_entity::EntityRef;
use wasmparser::Operator;

use super::Translator;
use crate::abi::trap::TrapKind;
use crate::compile::CompileError;
use crate::compile::signature::{POINTER, value_type};
use crate::compile::trap::trap_code;
use crate::module::index::{FuncIndex, GlobalIndex};
use crate::module::types::{RefType, ValType};

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn reference(&mut self, op: &Operator<'_>) -> Result<bool, CompileError> {
        match *op {
            Operator::GlobalGet { global_index } => {
                let value = self.global_get(GlobalIndex::from_u32(global_index));
                self.push(value);
            }
            Operator::GlobalSet { global_index } => {
                let value = self.pop();
                let (base, offset) = self.global_place(GlobalIndex::from_u32(global_index));
                let flags = self.ctx_flags().with_endianness(Endianness::Little);
                self.builder.ins().store(flags, value, base, offset as i32);
            }
            Operator::RefNull { hty } => {
                let ty = RefType { nullable: true, heap: self.env.module.heap_type(hty)? };
                let null = self.zero(value_type(ValType::Ref(ty)));
                self.push(null);
            }
            Operator::RefIsNull => {
                let value = self.pop();
                let null = if self.hint.never_null {
                    self.builder.ins().iconst(types::I32, 0)
                } else {
                    let null = self.builder.ins().icmp_imm_u(IntCC::Equal, value, 0);
                    self.builder.ins().uextend(types::I32, null)
                };
                self.push(null);
            }
            Operator::RefAsNonNull => {
                let value = self.peek();
                self.check_null(value);
            }
            Operator::RefFunc { function_index } => {
                let value = self.ref_func(FuncIndex::from_u32(function_index))?;
                self.push(value);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Traps if the operator's reference is null.
    pub(super) fn check_null(&mut self, reference: Value) {
        if !self.hint.never_null {
            self.builder.ins().trapz(reference, trap_code(TrapKind::NullReference));
        }
    }

    /// A reference to a function is the address of its record in the context.
    fn ref_func(&mut self, func: FuncIndex) -> Result<Value, CompileError> {
        let record = self.env.module.functions[func].func_ref;
        let record = record.ok_or_else(|| CompileError::Codegen {
            func: func.to_string(),
            reason: "a function that is made a reference is not declared as one".to_string(),
        })?;
        let offset = self.env.layout.func_ref(record);
        Ok(self.builder.ins().iadd_imm_u(self.ctx, i64::from(offset)))
    }

    fn global_get(&mut self, global: GlobalIndex) -> Value {
        let ty = self.env.module.globals[global];
        let value = value_type(ty.content);
        if let Some(bits) = self.env.module.const_global(global) {
            match value {
                types::I32 => return self.builder.ins().iconst(types::I32, bits as i64),
                types::I64 => return self.builder.ins().iconst(types::I64, bits as i64),
                types::F32 => {
                    let bits = cranelift_codegen::ir::immediates::Ieee32::with_bits(bits as u32);
                    return self.builder.ins().f32const(bits);
                }
                types::F64 => {
                    let bits = cranelift_codegen::ir::immediates::Ieee64::with_bits(bits);
                    return self.builder.ins().f64const(bits);
                }
                _ => {}
            }
        }
        let (base, offset) = self.global_place(global);
        let mut flags = self.ctx_flags().with_endianness(Endianness::Little);
        if !ty.mutable {
            flags = flags.with_readonly().with_can_move();
        }
        self.builder.ins().load(value, flags, base, offset as i32)
    }

    /// Where a global's value lies: a pointer and an offset to it.
    fn global_place(&mut self, global: GlobalIndex) -> (Value, u32) {
        let imported = self.env.module.imported.globals as usize;
        match global.index().checked_sub(imported) {
            Some(defined) => (self.ctx, self.env.layout.defined_global(defined as u32)),
            None => {
                let offset = self.env.layout.imported_global(global.as_u32());
                (self.load_constant(POINTER, self.ctx, offset), 0)
            }
        }
    }
}
