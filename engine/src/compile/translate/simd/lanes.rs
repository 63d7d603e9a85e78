//! Constants, and moving lanes about: splat, extract, replace, shuffle, swizzle.

use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use wasmparser::Operator;

use super::super::Translator;
use super::{CANONICAL, binary};

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn vector_lanes(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::V128Const { value } => {
                let value = self.vector_constant(CANONICAL, *value.bytes());
                self.push(value);
            }
            Operator::I8x16Splat => self.splat(types::I8X16),
            Operator::I16x8Splat => self.splat(types::I16X8),
            Operator::I32x4Splat => self.splat(types::I32X4),
            Operator::I64x2Splat => self.splat(types::I64X2),
            Operator::F32x4Splat => self.splat(types::F32X4),
            Operator::F64x2Splat => self.splat(types::F64X2),
            Operator::I8x16Shuffle { lanes } => {
                let [a, b] = self.pop_n_as(CANONICAL);
                let lanes = self.builder.func.dfg.immediates.push(lanes.to_vec().into());
                let value = self.builder.ins().shuffle(a, b, lanes);
                self.push(value);
            }
            Operator::I8x16Swizzle => binary!(self, I8X16, swizzle),
            _ => return self.extract_lane(op) || self.replace_lane(op),
        }
        true
    }

    fn splat(&mut self, ty: Type) {
        let value = self.pop_lane(ty);
        let value = self.builder.ins().splat(ty, value);
        self.push_vector(value);
    }

    /// Pops a scalar as a lane of `ty`: the stack has no integers below 32 bits.
    fn pop_lane(&mut self, ty: Type) -> Value {
        let value = self.pop();
        if ty.lane_bits() < 32 {
            return self.builder.ins().ireduce(ty.lane_type(), value);
        }
        value
    }

    fn extract_lane(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::I8x16ExtractLaneS { lane } => self.extract_signed(types::I8X16, lane),
            Operator::I8x16ExtractLaneU { lane } => self.extract_unsigned(types::I8X16, lane),
            Operator::I16x8ExtractLaneS { lane } => self.extract_signed(types::I16X8, lane),
            Operator::I16x8ExtractLaneU { lane } => self.extract_unsigned(types::I16X8, lane),
            Operator::I32x4ExtractLane { lane } => self.extract(types::I32X4, lane),
            Operator::I64x2ExtractLane { lane } => self.extract(types::I64X2, lane),
            Operator::F32x4ExtractLane { lane } => self.extract(types::F32X4, lane),
            Operator::F64x2ExtractLane { lane } => self.extract(types::F64X2, lane),
            _ => return false,
        }
        true
    }

    fn extract(&mut self, ty: Type, lane: u8) {
        let vector = self.pop_as(ty);
        let value = self.builder.ins().extractlane(vector, lane);
        self.push(value);
    }

    fn extract_signed(&mut self, ty: Type, lane: u8) {
        self.extract(ty, lane);
        let value = self.pop();
        let value = self.builder.ins().sextend(types::I32, value);
        self.push(value);
    }

    fn extract_unsigned(&mut self, ty: Type, lane: u8) {
        self.extract(ty, lane);
        let value = self.pop();
        let value = self.builder.ins().uextend(types::I32, value);
        self.push(value);
    }

    fn replace_lane(&mut self, op: &Operator<'_>) -> bool {
        let (ty, lane) = match *op {
            Operator::I8x16ReplaceLane { lane } => (types::I8X16, lane),
            Operator::I16x8ReplaceLane { lane } => (types::I16X8, lane),
            Operator::I32x4ReplaceLane { lane } => (types::I32X4, lane),
            Operator::I64x2ReplaceLane { lane } => (types::I64X2, lane),
            Operator::F32x4ReplaceLane { lane } => (types::F32X4, lane),
            Operator::F64x2ReplaceLane { lane } => (types::F64X2, lane),
            _ => return false,
        };
        let scalar = self.pop_lane(ty);
        let vector = self.pop_as(ty);
        let value = self.builder.ins().insertlane(vector, scalar, lane);
        self.push_vector(value);
        true
    }
}
