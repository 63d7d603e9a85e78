//! Arithmetic on lanes of integers.

use cranelift_codegen::ir::{InstBuilder, types};
use wasmparser::Operator;

use super::super::Translator;
use super::{binary, unary};

/// Both halves of a vector, widened, added in pairs.
macro_rules! pairwise {
    ($self:ident, $view:ident, $low:ident, $high:ident) => {{
        let a = $self.pop_as(types::$view);
        let low = $self.builder.ins().$low(a);
        let high = $self.builder.ins().$high(a);
        let value = $self.builder.ins().iadd_pairwise(low, high);
        $self.push_vector(value);
    }};
}

/// The product of widened halves.
macro_rules! widened_product {
    ($self:ident, $view:ident, $widen:ident) => {{
        let [a, b] = $self.pop_n_as(types::$view);
        let a = $self.builder.ins().$widen(a);
        let b = $self.builder.ins().$widen(b);
        let value = $self.builder.ins().imul(a, b);
        $self.push_vector(value);
    }};
}

/// A shift of all lanes by a scalar, taken modulo their width as Cranelift does, too.
macro_rules! shift {
    ($self:ident, $view:ident, $inst:ident) => {{
        let amount = $self.pop();
        let a = $self.pop_as(types::$view);
        let value = $self.builder.ins().$inst(a, amount);
        $self.push_vector(value);
    }};
}

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn vector_integer(&mut self, op: &Operator<'_>) -> bool {
        self.vector_bytes(op)
            || self.vector_halves(op)
            || self.vector_words(op)
            || self.vector_doubles(op)
            || self.vector_widening(op)
    }

    fn vector_bytes(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I8x16Abs => unary!(self, I8X16, iabs),
            Operator::I8x16Neg => unary!(self, I8X16, ineg),
            Operator::I8x16Popcnt => unary!(self, I8X16, popcnt),
            Operator::I8x16Shl => shift!(self, I8X16, ishl),
            Operator::I8x16ShrS => shift!(self, I8X16, sshr),
            Operator::I8x16ShrU => shift!(self, I8X16, ushr),
            Operator::I8x16Add => binary!(self, I8X16, iadd),
            Operator::I8x16Sub => binary!(self, I8X16, isub),
            Operator::I8x16AddSatS => binary!(self, I8X16, sadd_sat),
            Operator::I8x16AddSatU => binary!(self, I8X16, uadd_sat),
            Operator::I8x16SubSatS => binary!(self, I8X16, ssub_sat),
            Operator::I8x16SubSatU => binary!(self, I8X16, usub_sat),
            Operator::I8x16AvgrU => binary!(self, I8X16, avg_round),
            Operator::I8x16MinS => binary!(self, I8X16, smin),
            Operator::I8x16MinU => binary!(self, I8X16, umin),
            Operator::I8x16MaxS => binary!(self, I8X16, smax),
            Operator::I8x16MaxU => binary!(self, I8X16, umax),
            _ => return false,
        }
        true
    }

    fn vector_halves(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I16x8Abs => unary!(self, I16X8, iabs),
            Operator::I16x8Neg => unary!(self, I16X8, ineg),
            Operator::I16x8Shl => shift!(self, I16X8, ishl),
            Operator::I16x8ShrS => shift!(self, I16X8, sshr),
            Operator::I16x8ShrU => shift!(self, I16X8, ushr),
            Operator::I16x8Add => binary!(self, I16X8, iadd),
            Operator::I16x8Sub => binary!(self, I16X8, isub),
            Operator::I16x8Mul => binary!(self, I16X8, imul),
            Operator::I16x8AddSatS => binary!(self, I16X8, sadd_sat),
            Operator::I16x8AddSatU => binary!(self, I16X8, uadd_sat),
            Operator::I16x8SubSatS => binary!(self, I16X8, ssub_sat),
            Operator::I16x8SubSatU => binary!(self, I16X8, usub_sat),
            Operator::I16x8AvgrU => binary!(self, I16X8, avg_round),
            Operator::I16x8MinS => binary!(self, I16X8, smin),
            Operator::I16x8MinU => binary!(self, I16X8, umin),
            Operator::I16x8MaxS => binary!(self, I16X8, smax),
            Operator::I16x8MaxU => binary!(self, I16X8, umax),
            Operator::I16x8Q15MulrSatS => binary!(self, I16X8, sqmul_round_sat),
            _ => return false,
        }
        true
    }

    fn vector_words(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I32x4Abs => unary!(self, I32X4, iabs),
            Operator::I32x4Neg => unary!(self, I32X4, ineg),
            Operator::I32x4Shl => shift!(self, I32X4, ishl),
            Operator::I32x4ShrS => shift!(self, I32X4, sshr),
            Operator::I32x4ShrU => shift!(self, I32X4, ushr),
            Operator::I32x4Add => binary!(self, I32X4, iadd),
            Operator::I32x4Sub => binary!(self, I32X4, isub),
            Operator::I32x4Mul => binary!(self, I32X4, imul),
            Operator::I32x4MinS => binary!(self, I32X4, smin),
            Operator::I32x4MinU => binary!(self, I32X4, umin),
            Operator::I32x4MaxS => binary!(self, I32X4, smax),
            Operator::I32x4MaxU => binary!(self, I32X4, umax),
            _ => return false,
        }
        true
    }

    fn vector_doubles(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I64x2Abs => unary!(self, I64X2, iabs),
            Operator::I64x2Neg => unary!(self, I64X2, ineg),
            Operator::I64x2Shl => shift!(self, I64X2, ishl),
            Operator::I64x2ShrS => shift!(self, I64X2, sshr),
            Operator::I64x2ShrU => shift!(self, I64X2, ushr),
            Operator::I64x2Add => binary!(self, I64X2, iadd),
            Operator::I64x2Sub => binary!(self, I64X2, isub),
            Operator::I64x2Mul => binary!(self, I64X2, imul),
            _ => return false,
        }
        true
    }

    /// Operators whose results have wider lanes than their operands.
    fn vector_widening(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I16x8ExtAddPairwiseI8x16S => {
                pairwise!(self, I8X16, swiden_low, swiden_high);
            }
            Operator::I16x8ExtMulLowI8x16S => widened_product!(self, I8X16, swiden_low),
            Operator::I16x8ExtMulHighI8x16S => widened_product!(self, I8X16, swiden_high),
            Operator::I16x8ExtAddPairwiseI8x16U => {
                pairwise!(self, I8X16, uwiden_low, uwiden_high);
            }
            Operator::I16x8ExtMulLowI8x16U => widened_product!(self, I8X16, uwiden_low),
            Operator::I16x8ExtMulHighI8x16U => widened_product!(self, I8X16, uwiden_high),
            Operator::I32x4ExtAddPairwiseI16x8S => {
                pairwise!(self, I16X8, swiden_low, swiden_high);
            }
            Operator::I32x4ExtMulLowI16x8S => widened_product!(self, I16X8, swiden_low),
            Operator::I32x4ExtMulHighI16x8S => widened_product!(self, I16X8, swiden_high),
            Operator::I32x4ExtAddPairwiseI16x8U => {
                pairwise!(self, I16X8, uwiden_low, uwiden_high);
            }
            Operator::I32x4ExtMulLowI16x8U => widened_product!(self, I16X8, uwiden_low),
            Operator::I32x4ExtMulHighI16x8U => widened_product!(self, I16X8, uwiden_high),
            Operator::I64x2ExtMulLowI32x4S => widened_product!(self, I32X4, swiden_low),
            Operator::I64x2ExtMulHighI32x4S => widened_product!(self, I32X4, swiden_high),
            Operator::I64x2ExtMulLowI32x4U => widened_product!(self, I32X4, uwiden_low),
            Operator::I64x2ExtMulHighI32x4U => widened_product!(self, I32X4, uwiden_high),
            Operator::I32x4DotI16x8S => self.dot_product(),
            _ => return false,
        }
        true
    }

    /// Products of signed 16-bit lanes, added in pairs.
    fn dot_product(&mut self) {
        let [a, b] = self.pop_n_as(types::I16X8);
        let (a_low, b_low) = (self.builder.ins().swiden_low(a), self.builder.ins().swiden_low(b));
        let low = self.builder.ins().imul(a_low, b_low);
        let (a_high, b_high) =
            (self.builder.ins().swiden_high(a), self.builder.ins().swiden_high(b));
        let high = self.builder.ins().imul(a_high, b_high);
        let value = self.builder.ins().iadd_pairwise(low, high);
        self.push_vector(value);
    }
}
