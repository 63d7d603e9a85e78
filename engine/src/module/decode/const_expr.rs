//! Constant expressions: decoding and, where no import is involved, evaluation.

use wasmparser::Operator;

use super::sections::index;
use super::{DecodeError, limit_count};
use crate::module::index::GlobalIndex;
use crate::module::{ConstExpr, ConstOp, ModuleInfo, limits};
use cranelift_entity::EntityRef;

/// Decodes a validated constant expression.
pub(super) fn decode(expr: &wasmparser::ConstExpr<'_>) -> Result<ConstExpr, DecodeError> {
    let mut ops = Vec::with_capacity(1);
    let mut reader = expr.get_operators_reader();
    loop {
        let offset = reader.original_position();
        let op = match reader.read()? {
            Operator::End => return Ok(ConstExpr { ops }),
            Operator::I32Const { value } => ConstOp::I32Const(value),
            Operator::I64Const { value } => ConstOp::I64Const(value),
            Operator::F32Const { value } => ConstOp::F32Const(value.bits()),
            Operator::F64Const { value } => ConstOp::F64Const(value.bits()),
            Operator::V128Const { value } => ConstOp::V128Const(value.i128() as u128),
            Operator::GlobalGet { global_index } => ConstOp::GlobalGet(index(global_index)),
            Operator::RefNull { .. } => ConstOp::RefNull,
            Operator::RefFunc { function_index } => ConstOp::RefFunc(index(function_index)),
            Operator::I32Add => ConstOp::I32Add,
            Operator::I32Sub => ConstOp::I32Sub,
            Operator::I32Mul => ConstOp::I32Mul,
            Operator::I64Add => ConstOp::I64Add,
            Operator::I64Sub => ConstOp::I64Sub,
            Operator::I64Mul => ConstOp::I64Mul,
            Operator::RefI31 => ConstOp::RefI31,
            Operator::StructNew { struct_type_index } => {
                ConstOp::StructNew(index(struct_type_index))
            }
            Operator::StructNewDefault { struct_type_index } => {
                ConstOp::StructNewDefault(index(struct_type_index))
            }
            Operator::ArrayNew { array_type_index } => ConstOp::ArrayNew(index(array_type_index)),
            Operator::ArrayNewDefault { array_type_index } => {
                ConstOp::ArrayNewDefault(index(array_type_index))
            }
            Operator::ArrayNewFixed { array_type_index, array_size } => {
                ConstOp::ArrayNewFixed(index(array_type_index), array_size)
            }
            // A reference is the same in both hierarchies.
            Operator::AnyConvertExtern | Operator::ExternConvertAny => continue,
            other => {
                let message = format!("constant operator {other:?} is not supported");
                return Err(DecodeError::Invalid { offset, message });
            }
        };
        ops.push(op);
        limit_count("operators in a constant expression", ops.len(), limits::CONST_OPERATORS)?;
    }
}

impl ModuleInfo {
    /// The value of a constant expression of type i32 or i64 (as its zero-extended bits), if it
    /// depends on nothing but this module.
    #[must_use]
    pub fn const_bits(&self, expr: &ConstExpr) -> Option<u64> {
        let mut stack: Vec<u64> = Vec::new();
        for op in &expr.ops {
            let value = match *op {
                ConstOp::I32Const(value) => u64::from(value as u32),
                ConstOp::I64Const(value) => value as u64,
                ConstOp::GlobalGet(global) => self.const_global(global)?,
                ConstOp::I32Add | ConstOp::I32Sub | ConstOp::I32Mul => {
                    let (b, a) = (stack.pop()? as u32, stack.pop()? as u32);
                    u64::from(match op {
                        ConstOp::I32Add => a.wrapping_add(b),
                        ConstOp::I32Sub => a.wrapping_sub(b),
                        _ => a.wrapping_mul(b),
                    })
                }
                ConstOp::I64Add | ConstOp::I64Sub | ConstOp::I64Mul => {
                    let (b, a) = (stack.pop()?, stack.pop()?);
                    match op {
                        ConstOp::I64Add => a.wrapping_add(b),
                        ConstOp::I64Sub => a.wrapping_sub(b),
                        _ => a.wrapping_mul(b),
                    }
                }
                _ => return None,
            };
            stack.push(value);
        }
        stack.pop()
    }

    /// The bits of an immutable global of this module that is initialised by a single constant.
    ///
    /// Only one operator is followed, so a chain of globals cannot make this slow or deep.
    #[must_use]
    pub fn const_global(&self, global: GlobalIndex) -> Option<u64> {
        if self.globals[global].mutable {
            return None;
        }
        let defined = global.index().checked_sub(self.imported.globals as usize)?;
        match self.global_inits.get(defined)?.ops[..] {
            [ConstOp::I32Const(value)] => Some(u64::from(value as u32)),
            [ConstOp::I64Const(value)] => Some(value as u64),
            [ConstOp::F32Const(bits)] => Some(u64::from(bits)),
            [ConstOp::F64Const(bits)] => Some(bits),
            _ => None,
        }
    }
}
