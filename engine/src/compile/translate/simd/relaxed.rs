//! Relaxed operators: where the specification lets the machine choose, what it does best is taken.
//!
//! The choice depends on the CPU's features and on nothing else, and the features are part of a
//! code image's identity: within an image the same operands always give the same result.

use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use wasmparser::Operator;

use super::super::Translator;
use super::convert::{convert, truncate_zero};
use super::{CANONICAL, binary};

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn relaxed(&mut self, op: &Operator<'_>) -> bool {
        let x64 = self.env.machine.x64;
        match op {
            Operator::I8x16RelaxedSwizzle if x64 => binary!(self, I8X16, x86_pshufb),
            Operator::I8x16RelaxedSwizzle => binary!(self, I8X16, swizzle),
            Operator::I32x4RelaxedTruncF32x4S if x64 => convert!(self, F32X4, x86_cvtt2dq I32X4),
            Operator::I32x4RelaxedTruncF32x4S => convert!(self, F32X4, fcvt_to_sint_sat I32X4),
            Operator::I32x4RelaxedTruncF32x4U => convert!(self, F32X4, fcvt_to_uint_sat I32X4),
            Operator::I32x4RelaxedTruncF64x2SZero if x64 => {
                truncate_zero!(self, x86_cvtt2dq, snarrow);
            }
            Operator::I32x4RelaxedTruncF64x2SZero => {
                truncate_zero!(self, fcvt_to_sint_sat, snarrow);
            }
            Operator::I32x4RelaxedTruncF64x2UZero => {
                truncate_zero!(self, fcvt_to_uint_sat, uunarrow);
            }
            Operator::F32x4RelaxedMadd => self.multiply_add(types::F32X4),
            Operator::F64x2RelaxedMadd => self.multiply_add(types::F64X2),
            Operator::F32x4RelaxedNmadd => self.negated_multiply_add(types::F32X4),
            Operator::F64x2RelaxedNmadd => self.negated_multiply_add(types::F64X2),
            Operator::I8x16RelaxedLaneselect => self.lane_select(types::I8X16),
            Operator::I16x8RelaxedLaneselect => self.lane_select(types::I16X8),
            Operator::I32x4RelaxedLaneselect => self.lane_select(types::I32X4),
            Operator::I64x2RelaxedLaneselect => self.lane_select(types::I64X2),
            Operator::F32x4RelaxedMin => self.relaxed_min(types::F32X4),
            Operator::F64x2RelaxedMin => self.relaxed_min(types::F64X2),
            Operator::F32x4RelaxedMax => self.relaxed_max(types::F32X4),
            Operator::F64x2RelaxedMax => self.relaxed_max(types::F64X2),
            Operator::I16x8RelaxedQ15mulrS if x64 => binary!(self, I16X8, x86_pmulhrsw),
            Operator::I16x8RelaxedQ15mulrS => binary!(self, I16X8, sqmul_round_sat),
            Operator::I16x8RelaxedDotI8x16I7x16S => {
                let [a, b] = self.pop_n_as(CANONICAL);
                let value = self.dot_bytes(a, b);
                self.push_vector(value);
            }
            Operator::I32x4RelaxedDotI8x16I7x16AddS => self.dot_bytes_add(),
            _ => return false,
        }
        true
    }

    /// `a * b + c`, rounded once where the machine can.
    fn multiply_add(&mut self, ty: Type) {
        let [a, b, c] = self.pop_n_as(ty);
        let value = if self.env.machine.fma {
            self.builder.ins().fma(a, b, c)
        } else {
            let product = self.builder.ins().fmul(a, b);
            self.builder.ins().fadd(product, c)
        };
        self.push_vector(value);
    }

    /// `-(a * b) + c`, rounded once where the machine can.
    fn negated_multiply_add(&mut self, ty: Type) {
        let [a, b, c] = self.pop_n_as(ty);
        let value = if self.env.machine.fma {
            let a = self.builder.ins().fneg(a);
            self.builder.ins().fma(a, b, c)
        } else {
            let product = self.builder.ins().fmul(a, b);
            self.builder.ins().fsub(c, product)
        };
        self.push_vector(value);
    }

    /// Lanes of the first operand where the mask is set: by the top bit of a lane where there is an
    /// instruction for that, else bit by bit.
    fn lane_select(&mut self, ty: Type) {
        let [a, b, mask] = self.pop_n_as(ty);
        let value = if self.env.machine.x64 && ty != types::I16X8 {
            self.builder.ins().blendv(mask, a, b)
        } else {
            self.builder.ins().bitselect(mask, a, b)
        };
        self.push_vector(value);
    }

    /// x86's minimum: the second operand if they are equal or one is no number.
    fn relaxed_min(&mut self, ty: Type) {
        let [a, b] = self.pop_n_as(ty);
        if self.env.machine.x64 {
            return self.select_less(a, b, a, b);
        }
        let value = self.builder.ins().fmin(a, b);
        self.push_vector(value);
    }

    /// x86's maximum: the second operand if they are equal or one is no number.
    fn relaxed_max(&mut self, ty: Type) {
        let [a, b] = self.pop_n_as(ty);
        if self.env.machine.x64 {
            return self.select_less(b, a, a, b);
        }
        let value = self.builder.ins().fmax(a, b);
        self.push_vector(value);
    }

    /// Products of signed bytes with bytes of 7 bits, added in pairs to 16 bits.
    fn dot_bytes(&mut self, a: Value, b: Value) -> Value {
        if self.env.machine.x64 {
            return self.builder.ins().x86_pmaddubsw(a, b);
        }
        let (low, high) = (self.builder.ins().swiden_low(a), self.builder.ins().swiden_low(b));
        let low = self.builder.ins().imul(low, high);
        let (a, b) = (self.builder.ins().swiden_high(a), self.builder.ins().swiden_high(b));
        let high = self.builder.ins().imul(a, b);
        self.builder.ins().iadd_pairwise(low, high)
    }

    /// Products of signed bytes with bytes of 7 bits, added in fours to 32 bits.
    fn dot_bytes_add(&mut self) {
        let [a, b, c] = self.pop_n();
        let (a, b, c) =
            (self.view(a, CANONICAL), self.view(b, CANONICAL), self.view(c, types::I32X4));
        let sum = if self.env.machine.vnni {
            // The one form that the code generator makes a single instruction of.
            let (x, y) = (self.builder.ins().swiden_low(a), self.builder.ins().uwiden_low(b));
            let low = self.builder.ins().imul(x, y);
            let (x, y) = (self.builder.ins().swiden_high(a), self.builder.ins().uwiden_high(b));
            let high = self.builder.ins().imul(x, y);
            let (low, high) = (self.add_pairs(low), self.add_pairs(high));
            self.builder.ins().iadd_pairwise(low, high)
        } else {
            let products = self.dot_bytes(a, b);
            self.add_pairs(products)
        };
        let value = self.builder.ins().iadd(sum, c);
        self.push_vector(value);
    }

    /// Sums of neighbouring signed 16-bit lanes.
    fn add_pairs(&mut self, value: Value) -> Value {
        let low = self.builder.ins().swiden_low(value);
        let high = self.builder.ins().swiden_high(value);
        self.builder.ins().iadd_pairwise(low, high)
    }
}
