//! Constants, comparisons, arithmetic and conversions.

use cranelift_codegen::ir::condcodes::{CondCode, FloatCC, IntCC};
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{
    InstBuilder, InstructionData, MemFlagsData, Opcode, Type, Value, types,
};
use wasmparser::Operator;

use super::Translator;

macro_rules! unary {
    ($self:ident, $inst:ident) => {{
        let a = $self.pop();
        let value = $self.builder.ins().$inst(a);
        $self.push(value);
    }};
}

macro_rules! binary {
    ($self:ident, $inst:ident) => {{
        let [a, b] = $self.pop_n();
        let value = $self.builder.ins().$inst(a, b);
        $self.push(value);
    }};
}

macro_rules! convert {
    ($self:ident, $inst:ident $ty:ident) => {{
        let a = $self.pop();
        let value = $self.builder.ins().$inst(types::$ty, a);
        $self.push(value);
    }};
}

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn numeric(&mut self, op: &Operator<'_>) -> bool {
        self.constant(op)
            || self.integer(op)
            || self.comparison(op)
            || self.float(op)
            || self.conversion(op)
    }

    fn constant(&mut self, op: &Operator<'_>) -> bool {
        let value = match *op {
            Operator::I32Const { value } => {
                self.builder.ins().iconst(types::I32, i64::from(value as u32))
            }
            Operator::I64Const { value } => self.builder.ins().iconst(types::I64, value),
            Operator::F32Const { value } => {
                self.builder.ins().f32const(Ieee32::with_bits(value.bits()))
            }
            Operator::F64Const { value } => {
                self.builder.ins().f64const(Ieee64::with_bits(value.bits()))
            }
            _ => return false,
        };
        self.push(value);
        true
    }

    fn integer(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I32Clz | Operator::I64Clz => unary!(self, clz),
            Operator::I32Ctz | Operator::I64Ctz => unary!(self, ctz),
            Operator::I32Popcnt | Operator::I64Popcnt => unary!(self, popcnt),
            Operator::I32Add | Operator::I64Add => binary!(self, iadd),
            Operator::I32Sub | Operator::I64Sub => binary!(self, isub),
            Operator::I32Mul | Operator::I64Mul => binary!(self, imul),
            // These trap by themselves, with the right codes.
            Operator::I32DivS | Operator::I64DivS => binary!(self, sdiv),
            Operator::I32DivU | Operator::I64DivU => binary!(self, udiv),
            Operator::I32RemS | Operator::I64RemS => binary!(self, srem),
            Operator::I32RemU | Operator::I64RemU => binary!(self, urem),
            Operator::I32And | Operator::I64And => binary!(self, band),
            Operator::I32Or | Operator::I64Or => binary!(self, bor),
            Operator::I32Xor | Operator::I64Xor => binary!(self, bxor),
            // Like wasm's, these take the amount modulo the width.
            Operator::I32Shl | Operator::I64Shl => binary!(self, ishl),
            Operator::I32ShrS | Operator::I64ShrS => binary!(self, sshr),
            Operator::I32ShrU | Operator::I64ShrU => binary!(self, ushr),
            Operator::I32Rotl | Operator::I64Rotl => binary!(self, rotl),
            Operator::I32Rotr | Operator::I64Rotr => binary!(self, rotr),
            _ => return false,
        }
        true
    }

    fn comparison(&mut self, op: &Operator<'_>) -> bool {
        let code = match op {
            Operator::I32Eqz | Operator::I64Eqz => {
                let value = self.pop();
                let zero = match self.float_compare(value) {
                    Some((code, [a, b])) => self.builder.ins().fcmp(code.complement(), a, b),
                    None => self.builder.ins().icmp_imm_u(IntCC::Equal, value, 0),
                };
                self.push_bool(zero);
                return true;
            }
            Operator::I32Eq | Operator::I64Eq => IntCC::Equal,
            Operator::I32Ne | Operator::I64Ne => IntCC::NotEqual,
            Operator::I32LtS | Operator::I64LtS => IntCC::SignedLessThan,
            Operator::I32LtU | Operator::I64LtU => IntCC::UnsignedLessThan,
            Operator::I32GtS | Operator::I64GtS => IntCC::SignedGreaterThan,
            Operator::I32GtU | Operator::I64GtU => IntCC::UnsignedGreaterThan,
            Operator::I32LeS | Operator::I64LeS => IntCC::SignedLessThanOrEqual,
            Operator::I32LeU | Operator::I64LeU => IntCC::UnsignedLessThanOrEqual,
            Operator::I32GeS | Operator::I64GeS => IntCC::SignedGreaterThanOrEqual,
            Operator::I32GeU | Operator::I64GeU => IntCC::UnsignedGreaterThanOrEqual,
            _ => return self.float_comparison(op),
        };
        let [a, b] = self.pop_n();
        let holds = self.builder.ins().icmp(code, a, b);
        self.push_bool(holds);
        true
    }

    fn float_comparison(&mut self, op: &Operator<'_>) -> bool {
        let code = match op {
            Operator::F32Eq | Operator::F64Eq => FloatCC::Equal,
            Operator::F32Ne | Operator::F64Ne => FloatCC::NotEqual,
            Operator::F32Lt | Operator::F64Lt => FloatCC::LessThan,
            Operator::F32Gt | Operator::F64Gt => FloatCC::GreaterThan,
            Operator::F32Le | Operator::F64Le => FloatCC::LessThanOrEqual,
            Operator::F32Ge | Operator::F64Ge => FloatCC::GreaterThanOrEqual,
            _ => return false,
        };
        let [a, b] = self.pop_n();
        let holds = self.builder.ins().fcmp(code, a, b);
        self.push_bool(holds);
        true
    }

    /// The comparison of floats that a truth value comes from. Its negation is a comparison too, which
    /// branches and selections use as it is; of zero, which the code generator does with integers,
    /// it would make a number out of the processor's flags first.
    fn float_compare(&self, value: Value) -> Option<(FloatCC, [Value; 2])> {
        let dfg = &self.builder.func.dfg;
        let made_by = |value| dfg.value_def(value).inst().map(|inst| dfg.insts[inst]);
        match made_by(value)? {
            InstructionData::Unary { opcode: Opcode::Uextend, arg } => match made_by(arg)? {
                InstructionData::FloatCompare { args, cond, .. } => Some((cond, args)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Wasm's truth values are i32, Cranelift's i8.
    fn push_bool(&mut self, value: Value) {
        let value = self.builder.ins().uextend(types::I32, value);
        self.push(value);
    }

    fn float(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::F32Abs | Operator::F64Abs => unary!(self, fabs),
            Operator::F32Neg | Operator::F64Neg => unary!(self, fneg),
            Operator::F32Ceil | Operator::F64Ceil => unary!(self, ceil),
            Operator::F32Floor | Operator::F64Floor => unary!(self, floor),
            Operator::F32Trunc | Operator::F64Trunc => unary!(self, trunc),
            Operator::F32Nearest | Operator::F64Nearest => unary!(self, nearest),
            Operator::F32Sqrt | Operator::F64Sqrt => unary!(self, sqrt),
            Operator::F32Add | Operator::F64Add => binary!(self, fadd),
            Operator::F32Sub | Operator::F64Sub => binary!(self, fsub),
            Operator::F32Mul | Operator::F64Mul => binary!(self, fmul),
            Operator::F32Div | Operator::F64Div => binary!(self, fdiv),
            Operator::F32Min | Operator::F64Min => binary!(self, fmin),
            Operator::F32Max | Operator::F64Max => binary!(self, fmax),
            Operator::F32Copysign | Operator::F64Copysign => binary!(self, fcopysign),
            _ => return false,
        }
        true
    }

    fn conversion(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I32WrapI64 => convert!(self, ireduce I32),
            Operator::I64ExtendI32S => convert!(self, sextend I64),
            Operator::I64ExtendI32U => convert!(self, uextend I64),
            Operator::I32Extend8S => self.extend(types::I8, types::I32),
            Operator::I32Extend16S => self.extend(types::I16, types::I32),
            Operator::I64Extend8S => self.extend(types::I8, types::I64),
            Operator::I64Extend16S => self.extend(types::I16, types::I64),
            Operator::I64Extend32S => self.extend(types::I32, types::I64),
            Operator::F32DemoteF64 => convert!(self, fdemote F32),
            Operator::F64PromoteF32 => convert!(self, fpromote F64),
            Operator::F32ConvertI32S | Operator::F32ConvertI64S => {
                convert!(self, fcvt_from_sint F32);
            }
            Operator::F32ConvertI32U | Operator::F32ConvertI64U => {
                convert!(self, fcvt_from_uint F32);
            }
            Operator::F64ConvertI32S | Operator::F64ConvertI64S => {
                convert!(self, fcvt_from_sint F64);
            }
            Operator::F64ConvertI32U | Operator::F64ConvertI64U => {
                convert!(self, fcvt_from_uint F64);
            }
            Operator::I32ReinterpretF32 => self.reinterpret(types::I32),
            Operator::I64ReinterpretF64 => self.reinterpret(types::I64),
            Operator::F32ReinterpretI32 => self.reinterpret(types::F32),
            Operator::F64ReinterpretI64 => self.reinterpret(types::F64),
            _ => return self.truncation(op),
        }
        true
    }

    fn truncation(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I32TruncF32S | Operator::I32TruncF64S => convert!(self, fcvt_to_sint I32),
            Operator::I32TruncF32U | Operator::I32TruncF64U => convert!(self, fcvt_to_uint I32),
            Operator::I64TruncF32S | Operator::I64TruncF64S => convert!(self, fcvt_to_sint I64),
            Operator::I64TruncF32U | Operator::I64TruncF64U => convert!(self, fcvt_to_uint I64),
            Operator::I32TruncSatF32S | Operator::I32TruncSatF64S => {
                convert!(self, fcvt_to_sint_sat I32);
            }
            Operator::I32TruncSatF32U | Operator::I32TruncSatF64U => {
                convert!(self, fcvt_to_uint_sat I32);
            }
            Operator::I64TruncSatF32S | Operator::I64TruncSatF64S => {
                convert!(self, fcvt_to_sint_sat I64);
            }
            Operator::I64TruncSatF32U | Operator::I64TruncSatF64U => {
                convert!(self, fcvt_to_uint_sat I64);
            }
            _ => return false,
        }
        true
    }

    /// Sign-extends the low bits.
    fn extend(&mut self, from: Type, to: Type) {
        let value = self.pop();
        let narrow = self.builder.ins().ireduce(from, value);
        let value = self.builder.ins().sextend(to, narrow);
        self.push(value);
    }

    fn reinterpret(&mut self, ty: Type) {
        let value = self.pop();
        let value = self.builder.ins().bitcast(ty, MemFlagsData::new(), value);
        self.push(value);
    }
}
