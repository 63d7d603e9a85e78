//! Comparisons lane by lane: all bits of a lane are set where it holds.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, types};
use wasmparser::Operator;

use super::super::Translator;

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn vector_comparison(&mut self, op: &Operator<'_>) -> bool {
        let (ty, code) = match op {
            Operator::I8x16Eq => (types::I8X16, IntCC::Equal),
            Operator::I8x16Ne => (types::I8X16, IntCC::NotEqual),
            Operator::I8x16LtS => (types::I8X16, IntCC::SignedLessThan),
            Operator::I8x16LtU => (types::I8X16, IntCC::UnsignedLessThan),
            Operator::I8x16GtS => (types::I8X16, IntCC::SignedGreaterThan),
            Operator::I8x16GtU => (types::I8X16, IntCC::UnsignedGreaterThan),
            Operator::I8x16LeS => (types::I8X16, IntCC::SignedLessThanOrEqual),
            Operator::I8x16LeU => (types::I8X16, IntCC::UnsignedLessThanOrEqual),
            Operator::I8x16GeS => (types::I8X16, IntCC::SignedGreaterThanOrEqual),
            Operator::I8x16GeU => (types::I8X16, IntCC::UnsignedGreaterThanOrEqual),
            Operator::I16x8Eq => (types::I16X8, IntCC::Equal),
            Operator::I16x8Ne => (types::I16X8, IntCC::NotEqual),
            Operator::I16x8LtS => (types::I16X8, IntCC::SignedLessThan),
            Operator::I16x8LtU => (types::I16X8, IntCC::UnsignedLessThan),
            Operator::I16x8GtS => (types::I16X8, IntCC::SignedGreaterThan),
            Operator::I16x8GtU => (types::I16X8, IntCC::UnsignedGreaterThan),
            Operator::I16x8LeS => (types::I16X8, IntCC::SignedLessThanOrEqual),
            Operator::I16x8LeU => (types::I16X8, IntCC::UnsignedLessThanOrEqual),
            Operator::I16x8GeS => (types::I16X8, IntCC::SignedGreaterThanOrEqual),
            Operator::I16x8GeU => (types::I16X8, IntCC::UnsignedGreaterThanOrEqual),
            Operator::I32x4Eq => (types::I32X4, IntCC::Equal),
            Operator::I32x4Ne => (types::I32X4, IntCC::NotEqual),
            Operator::I32x4LtS => (types::I32X4, IntCC::SignedLessThan),
            Operator::I32x4LtU => (types::I32X4, IntCC::UnsignedLessThan),
            Operator::I32x4GtS => (types::I32X4, IntCC::SignedGreaterThan),
            Operator::I32x4GtU => (types::I32X4, IntCC::UnsignedGreaterThan),
            Operator::I32x4LeS => (types::I32X4, IntCC::SignedLessThanOrEqual),
            Operator::I32x4LeU => (types::I32X4, IntCC::UnsignedLessThanOrEqual),
            Operator::I32x4GeS => (types::I32X4, IntCC::SignedGreaterThanOrEqual),
            Operator::I32x4GeU => (types::I32X4, IntCC::UnsignedGreaterThanOrEqual),
            Operator::I64x2Eq => (types::I64X2, IntCC::Equal),
            Operator::I64x2Ne => (types::I64X2, IntCC::NotEqual),
            Operator::I64x2LtS => (types::I64X2, IntCC::SignedLessThan),
            Operator::I64x2GtS => (types::I64X2, IntCC::SignedGreaterThan),
            Operator::I64x2LeS => (types::I64X2, IntCC::SignedLessThanOrEqual),
            Operator::I64x2GeS => (types::I64X2, IntCC::SignedGreaterThanOrEqual),
            _ => return self.vector_float_comparison(op),
        };
        let [a, b] = self.pop_n_as(ty);
        let mask = self.builder.ins().icmp(code, a, b);
        self.push_vector(mask);
        true
    }

    fn vector_float_comparison(&mut self, op: &Operator<'_>) -> bool {
        let (ty, code) = match op {
            Operator::F32x4Eq => (types::F32X4, FloatCC::Equal),
            Operator::F32x4Ne => (types::F32X4, FloatCC::NotEqual),
            Operator::F32x4Lt => (types::F32X4, FloatCC::LessThan),
            Operator::F32x4Gt => (types::F32X4, FloatCC::GreaterThan),
            Operator::F32x4Le => (types::F32X4, FloatCC::LessThanOrEqual),
            Operator::F32x4Ge => (types::F32X4, FloatCC::GreaterThanOrEqual),
            Operator::F64x2Eq => (types::F64X2, FloatCC::Equal),
            Operator::F64x2Ne => (types::F64X2, FloatCC::NotEqual),
            Operator::F64x2Lt => (types::F64X2, FloatCC::LessThan),
            Operator::F64x2Gt => (types::F64X2, FloatCC::GreaterThan),
            Operator::F64x2Le => (types::F64X2, FloatCC::LessThanOrEqual),
            Operator::F64x2Ge => (types::F64X2, FloatCC::GreaterThanOrEqual),
            _ => return false,
        };
        let [a, b] = self.pop_n_as(ty);
        let mask = self.builder.ins().fcmp(code, a, b);
        self.push_vector(mask);
        true
    }
}
