//! Vectors of 128 bits, one family of operators a file.
//!
//! Wasm has one vector type and gives each operator its own view of the lanes; Cranelift has a type
//! for each view. On the value stack, and with it in locals, block parameters, calls and memory, a
//! vector is always an [`types::I8X16`]. An operator takes its operands in the view that it needs
//! and pushes its result in the canonical one; [`Translator::view`] is the one place that converts.

mod bitwise;
mod compare;
mod convert;
mod float;
mod integer;
mod lanes;
mod memory;
mod relaxed;

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    Endianness, InstBuilder, InstructionData, MemFlagsData, Opcode, Type, Value, ValueDef, types,
};
use wasmparser::Operator;

use super::Translator;

/// The type of every vector on the value stack.
const CANONICAL: Type = types::I8X16;

/// Lane 0 comes first, whatever the machine's order.
const IN_ORDER: MemFlagsData = MemFlagsData::new().with_endianness(Endianness::Little);

/// Pops an operand, applies an instruction in a view of the lanes, pushes the result.
macro_rules! unary {
    ($self:ident, $view:ident, $inst:ident) => {{
        let a = $self.pop_as(types::$view);
        let value = $self.builder.ins().$inst(a);
        $self.push_vector(value);
    }};
}

/// The same with two operands.
macro_rules! binary {
    ($self:ident, $view:ident, $inst:ident) => {{
        let [a, b] = $self.pop_n_as(types::$view);
        let value = $self.builder.ins().$inst(a, b);
        $self.push_vector(value);
    }};
}

use {binary, unary};

impl Translator<'_, '_> {
    /// Translates an operator on vectors; `false` if it is of another family.
    pub(super) fn simd(&mut self, op: &Operator<'_>) -> bool {
        self.vector_memory(op)
            || self.vector_lanes(op)
            || self.vector_bitwise(op)
            || self.vector_float(op)
            || self.vector_integer(op)
            || self.vector_comparison(op)
            || self.vector_conversion(op)
            || self.relaxed(op)
    }

    /// A vector seen as another type of vector.
    fn view(&mut self, value: Value, ty: Type) -> Value {
        let dfg = &self.builder.func.dfg;
        if dfg.value_type(value) == ty {
            return value;
        }
        // Going there and back is not going anywhere: what other operators left as a view of `ty`
        // is taken as it was.
        let original = self.original(value);
        if self.builder.func.dfg.value_type(original) == ty {
            return original;
        }
        if let Some(loaded) = self.load_as(original, ty) {
            return loaded;
        }
        self.builder.ins().bitcast(ty, IN_ORDER, original)
    }

    /// If a canonical vector comes straight from memory, makes it a load of `ty` and the canonical
    /// vector a view of that: an instruction takes its operand from memory only when nothing is
    /// between. Before AVX no instruction takes a vector that is not aligned, and the code generator
    /// (0.135) overlooks it for `cmpps` and `cmppd`: there no load must be a vector of floats.
    fn load_as(&mut self, value: Value, ty: Type) -> Option<Value> {
        if self.env.machine.x64 && !self.env.machine.avx {
            return None;
        }
        let func = &mut *self.builder.func;
        let value = func.dfg.resolve_aliases(value);
        let inst = func.dfg.value_def(value).inst()?;
        if func.dfg.insts[inst].opcode() != Opcode::Load || func.dfg.value_type(value) != CANONICAL
        {
            return None;
        }
        let loaded = func.dfg.replace_result(value, ty);
        let mut behind = FuncCursor::new(func).after_inst(inst);
        behind.ins().with_result(value).bitcast(CANONICAL, IN_ORDER, loaded);
        Some(loaded)
    }

    /// The vector that a value is a view of: itself if it is no view.
    fn original(&self, value: Value) -> Value {
        let dfg = &self.builder.func.dfg;
        let ValueDef::Result(inst, _) = dfg.value_def(dfg.resolve_aliases(value)) else {
            return value;
        };
        match dfg.insts[inst] {
            InstructionData::LoadNoOffset { opcode: Opcode::Bitcast, arg, .. }
                if dfg.value_type(arg).is_vector() =>
            {
                arg
            }
            _ => value,
        }
    }

    fn pop_as(&mut self, view: Type) -> Value {
        let value = self.pop();
        self.view(value, view)
    }

    fn pop_n_as<const N: usize>(&mut self, view: Type) -> [Value; N] {
        let values: [Value; N] = self.pop_n();
        values.map(|value| self.view(value, view))
    }

    /// Operands of an operator to which the lanes do not matter.
    fn pop_n_alike<const N: usize>(&mut self) -> [Value; N] {
        let values = self.pop_n();
        self.alike(values)
    }

    /// Values in the integer view that the first has by itself: the code generator recognises more
    /// when it sees where a mask comes from.
    fn alike<const N: usize>(&mut self, values: [Value; N]) -> [Value; N] {
        let ty = self.builder.func.dfg.value_type(self.original(values[0]));
        let view = if ty.lane_type().is_int() { ty } else { CANONICAL };
        values.map(|value| self.view(value, view))
    }

    fn push_vector(&mut self, value: Value) {
        let value = self.view(value, CANONICAL);
        self.push(value);
    }

    /// A constant, byte 0 of the memory's order first.
    pub(super) fn vector_constant(&mut self, ty: Type, bytes: [u8; 16]) -> Value {
        let constant = self.builder.func.dfg.constants.insert(bytes.to_vec().into());
        self.builder.ins().vconst(ty, constant)
    }
}
