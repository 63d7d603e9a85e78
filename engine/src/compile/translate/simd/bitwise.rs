//! Operators on vectors as bits, and reductions to a scalar.

use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use wasmparser::Operator;

use super::super::Translator;

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn vector_bitwise(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::V128Not => {
                let [a] = self.pop_n_alike();
                let value = self.builder.ins().bnot(a);
                self.push_vector(value);
            }
            Operator::V128And => {
                let [a, b] = self.pop_n_alike();
                let value = self.builder.ins().band(a, b);
                self.push_vector(value);
            }
            Operator::V128AndNot => {
                let [a, b] = self.pop_n_alike();
                let b = self.builder.ins().bnot(b);
                let value = self.builder.ins().band(a, b);
                self.push_vector(value);
            }
            Operator::V128Or => {
                let [a, b] = self.pop_n_alike();
                let value = self.builder.ins().bor(a, b);
                self.push_vector(value);
            }
            Operator::V128Xor => {
                let [a, b] = self.pop_n_alike();
                let value = self.builder.ins().bxor(a, b);
                self.push_vector(value);
            }
            Operator::V128Bitselect => {
                let [a, b, mask] = self.pop_n();
                let [mask, a, b] = self.alike([mask, a, b]);
                let value = self.builder.ins().bitselect(mask, a, b);
                self.push_vector(value);
            }
            Operator::V128AnyTrue => {
                let [a] = self.pop_n_alike();
                let any = self.builder.ins().vany_true(a);
                self.push_truth(any);
            }
            Operator::I8x16AllTrue => self.all_true(types::I8X16),
            Operator::I16x8AllTrue => self.all_true(types::I16X8),
            Operator::I32x4AllTrue => self.all_true(types::I32X4),
            Operator::I64x2AllTrue => self.all_true(types::I64X2),
            Operator::I8x16Bitmask => self.bitmask(types::I8X16),
            Operator::I16x8Bitmask => self.bitmask(types::I16X8),
            Operator::I32x4Bitmask => self.bitmask(types::I32X4),
            Operator::I64x2Bitmask => self.bitmask(types::I64X2),
            _ => return false,
        }
        true
    }

    fn all_true(&mut self, ty: Type) {
        let a = self.pop_as(ty);
        let all = self.builder.ins().vall_true(a);
        self.push_truth(all);
    }

    fn push_truth(&mut self, value: Value) {
        let value = self.builder.ins().uextend(types::I32, value);
        self.push(value);
    }

    fn bitmask(&mut self, ty: Type) {
        let a = self.pop_as(ty);
        let bits = self.builder.ins().vhigh_bits(types::I32, a);
        self.push(bits);
    }
}
