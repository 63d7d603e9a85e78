//! Loads and stores of vectors and of their lanes.

use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use wasmparser::{MemArg, Operator};

use super::super::Translator;

/// A load of half a vector that widens the lanes.
macro_rules! extending {
    ($self:ident, $memarg:ident, $load:ident) => {{
        let (address, offset) = $self.address($memarg, 8);
        let flags = $self.heap_flags();
        let value = $self.builder.ins().$load(flags, address, offset);
        $self.push_vector(value);
    }};
}

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn vector_memory(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::V128Load { memarg } => {
                let (address, offset) = self.address(memarg, 16);
                let flags = self.heap_flags();
                let value = self.builder.ins().load(super::CANONICAL, flags, address, offset);
                self.push(value);
            }
            Operator::V128Store { memarg } => {
                let value = self.pop();
                let value = self.original(value);
                let (address, offset) = self.address(memarg, 16);
                let flags = self.heap_flags();
                self.builder.ins().store(flags, value, address, offset);
            }
            Operator::V128Load8x8S { memarg } => extending!(self, memarg, sload8x8),
            Operator::V128Load8x8U { memarg } => extending!(self, memarg, uload8x8),
            Operator::V128Load16x4S { memarg } => extending!(self, memarg, sload16x4),
            Operator::V128Load16x4U { memarg } => extending!(self, memarg, uload16x4),
            Operator::V128Load32x2S { memarg } => extending!(self, memarg, sload32x2),
            Operator::V128Load32x2U { memarg } => extending!(self, memarg, uload32x2),
            Operator::V128Load8Splat { memarg } => self.load_splat(memarg, types::I8X16),
            Operator::V128Load16Splat { memarg } => self.load_splat(memarg, types::I16X8),
            Operator::V128Load32Splat { memarg } => self.load_splat(memarg, types::I32X4),
            Operator::V128Load64Splat { memarg } => self.load_splat(memarg, types::I64X2),
            Operator::V128Load32Zero { memarg } => self.load_zero(memarg, types::I32X4),
            Operator::V128Load64Zero { memarg } => self.load_zero(memarg, types::I64X2),
            Operator::V128Load8Lane { memarg, lane } => {
                self.load_lane(memarg, *lane, types::I8X16);
            }
            Operator::V128Load16Lane { memarg, lane } => {
                self.load_lane(memarg, *lane, types::I16X8);
            }
            Operator::V128Load32Lane { memarg, lane } => {
                self.load_lane(memarg, *lane, types::I32X4);
            }
            Operator::V128Load64Lane { memarg, lane } => {
                self.load_lane(memarg, *lane, types::I64X2);
            }
            Operator::V128Store8Lane { memarg, lane } => {
                self.store_lane(memarg, *lane, types::I8X16);
            }
            Operator::V128Store16Lane { memarg, lane } => {
                self.store_lane(memarg, *lane, types::I16X8);
            }
            Operator::V128Store32Lane { memarg, lane } => {
                self.store_lane(memarg, *lane, types::I32X4);
            }
            Operator::V128Store64Lane { memarg, lane } => {
                self.store_lane(memarg, *lane, types::I64X2);
            }
            _ => return false,
        }
        true
    }

    fn load_splat(&mut self, memarg: &MemArg, ty: Type) {
        let lane = self.load_scalar(memarg, ty.lane_type());
        let value = self.builder.ins().splat(ty, lane);
        self.push_vector(value);
    }

    /// Lane 0 from memory, zero in the others.
    fn load_zero(&mut self, memarg: &MemArg, ty: Type) {
        let lane = self.load_scalar(memarg, ty.lane_type());
        let value = self.builder.ins().scalar_to_vector(ty, lane);
        self.push_vector(value);
    }

    fn load_lane(&mut self, memarg: &MemArg, lane: u8, ty: Type) {
        let vector = self.pop_as(ty);
        let scalar = self.load_scalar(memarg, ty.lane_type());
        let value = self.builder.ins().insertlane(vector, scalar, lane);
        self.push_vector(value);
    }

    fn store_lane(&mut self, memarg: &MemArg, lane: u8, ty: Type) {
        let vector = self.pop_as(ty);
        let (address, offset) = self.address(memarg, u64::from(ty.lane_type().bytes()));
        let flags = self.heap_flags();
        let scalar = self.builder.ins().extractlane(vector, lane);
        self.builder.ins().store(flags, scalar, address, offset);
    }

    fn load_scalar(&mut self, memarg: &MemArg, ty: Type) -> Value {
        let (address, offset) = self.address(memarg, u64::from(ty.bytes()));
        let flags = self.heap_flags();
        self.builder.ins().load(ty, flags, address, offset)
    }
}
