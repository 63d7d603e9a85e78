//! Wide arithmetic: 128-bit integers as pairs of i64, low half first.

use cranelift_codegen::ir::{InstBuilder, Value, types};
use wasmparser::Operator;

use super::Translator;

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn wide_arithmetic(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I64Add128 => {
                let [left, right] = self.pop_wide_pair();
                let sum = self.builder.ins().iadd(left, right);
                self.push_wide(sum);
            }
            Operator::I64Sub128 => {
                let [left, right] = self.pop_wide_pair();
                let difference = self.builder.ins().isub(left, right);
                self.push_wide(difference);
            }
            Operator::I64MulWideS => {
                let [left, right] = self.pop_n();
                let left = self.builder.ins().sextend(types::I128, left);
                let right = self.builder.ins().sextend(types::I128, right);
                let product = self.builder.ins().imul(left, right);
                self.push_wide(product);
            }
            Operator::I64MulWideU => {
                let [left, right] = self.pop_n();
                let left = self.builder.ins().uextend(types::I128, left);
                let right = self.builder.ins().uextend(types::I128, right);
                let product = self.builder.ins().imul(left, right);
                self.push_wide(product);
            }
            _ => return false,
        }
        true
    }

    fn pop_wide_pair(&mut self) -> [Value; 2] {
        let [left_low, left_high, right_low, right_high] = self.pop_n();
        [
            self.builder.ins().iconcat(left_low, left_high),
            self.builder.ins().iconcat(right_low, right_high),
        ]
    }

    fn push_wide(&mut self, value: Value) {
        let (low, high) = self.builder.ins().isplit(value);
        self.push(low);
        self.push(high);
    }
}
