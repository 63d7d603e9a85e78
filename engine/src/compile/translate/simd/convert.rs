//! Conversions between lane types: narrowing, widening, integers and floats.

use cranelift_codegen::ir::{InstBuilder, types};
use wasmparser::Operator;

use super::super::Translator;
use super::{binary, unary};

/// A conversion to lanes of another type.
macro_rules! convert {
    ($self:ident, $from:ident, $inst:ident $to:ident) => {{
        let a = $self.pop_as(types::$from);
        let value = $self.builder.ins().$inst(types::$to, a);
        $self.push_vector(value);
    }};
}

/// A conversion of the low two 32-bit integers to 64-bit floats.
macro_rules! convert_low {
    ($self:ident, $widen:ident, $inst:ident) => {{
        let a = $self.pop_as(types::I32X4);
        let low = $self.builder.ins().$widen(a);
        let value = $self.builder.ins().$inst(types::F64X2, low);
        $self.push_vector(value);
    }};
}

/// A conversion of two 64-bit floats to the low two 32-bit integers, with zeros above.
macro_rules! truncate_zero {
    ($self:ident, $inst:ident, $narrow:ident) => {{
        let a = $self.pop_as(types::F64X2);
        let wide = $self.builder.ins().$inst(types::I64X2, a);
        let zero = $self.vector_constant(types::I64X2, [0; 16]);
        let value = $self.builder.ins().$narrow(wide, zero);
        $self.push_vector(value);
    }};
}

pub(super) use {convert, truncate_zero};

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn vector_conversion(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I8x16NarrowI16x8S => binary!(self, I16X8, snarrow),
            Operator::I8x16NarrowI16x8U => binary!(self, I16X8, unarrow),
            Operator::I16x8NarrowI32x4S => binary!(self, I32X4, snarrow),
            Operator::I16x8NarrowI32x4U => binary!(self, I32X4, unarrow),
            Operator::I16x8ExtendLowI8x16S => unary!(self, I8X16, swiden_low),
            Operator::I16x8ExtendHighI8x16S => unary!(self, I8X16, swiden_high),
            Operator::I16x8ExtendLowI8x16U => unary!(self, I8X16, uwiden_low),
            Operator::I16x8ExtendHighI8x16U => unary!(self, I8X16, uwiden_high),
            Operator::I32x4ExtendLowI16x8S => unary!(self, I16X8, swiden_low),
            Operator::I32x4ExtendHighI16x8S => unary!(self, I16X8, swiden_high),
            Operator::I32x4ExtendLowI16x8U => unary!(self, I16X8, uwiden_low),
            Operator::I32x4ExtendHighI16x8U => unary!(self, I16X8, uwiden_high),
            Operator::I64x2ExtendLowI32x4S => unary!(self, I32X4, swiden_low),
            Operator::I64x2ExtendHighI32x4S => unary!(self, I32X4, swiden_high),
            Operator::I64x2ExtendLowI32x4U => unary!(self, I32X4, uwiden_low),
            Operator::I64x2ExtendHighI32x4U => unary!(self, I32X4, uwiden_high),
            Operator::I32x4TruncSatF32x4S => convert!(self, F32X4, fcvt_to_sint_sat I32X4),
            Operator::I32x4TruncSatF32x4U => convert!(self, F32X4, fcvt_to_uint_sat I32X4),
            Operator::I32x4TruncSatF64x2SZero => {
                truncate_zero!(self, fcvt_to_sint_sat, snarrow);
            }
            Operator::I32x4TruncSatF64x2UZero => {
                truncate_zero!(self, fcvt_to_uint_sat, uunarrow);
            }
            Operator::F32x4ConvertI32x4S => convert!(self, I32X4, fcvt_from_sint F32X4),
            Operator::F32x4ConvertI32x4U => convert!(self, I32X4, fcvt_from_uint F32X4),
            Operator::F64x2ConvertLowI32x4S => convert_low!(self, swiden_low, fcvt_from_sint),
            Operator::F64x2ConvertLowI32x4U => convert_low!(self, uwiden_low, fcvt_from_uint),
            Operator::F32x4DemoteF64x2Zero => unary!(self, F64X2, fvdemote),
            Operator::F64x2PromoteLowF32x4 => unary!(self, F32X4, fvpromote_low),
            _ => return false,
        }
        true
    }
}
