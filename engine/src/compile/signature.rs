//! Wasm types and signatures as the code generator's.

use cranelift_codegen::ir::{AbiParam, ArgumentPurpose, Signature, Type, types};
use cranelift_codegen::isa::CallConv;

use crate::abi::builtins::{Builtin, BuiltinType};
use crate::module::types::{MachineType, Signature as WasmSignature, ValType};

/// Pointers: contexts, code, memory bases, function references.
pub(super) const POINTER: Type = types::I64;

/// How a value of this type is held in registers, memory and the array form of trampolines.
pub(super) fn value_type(ty: ValType) -> Type {
    machine_type(ty.machine())
}

/// The code generator's name of a machine type.
pub(super) fn machine_type(ty: MachineType) -> Type {
    match ty {
        MachineType::I32 => types::I32,
        MachineType::I64 => types::I64,
        MachineType::F32 => types::F32,
        MachineType::F64 => types::F64,
        MachineType::V128 => types::I8X16,
    }
}

/// The convention of wasm functions.
pub(super) fn wasm_signature(ty: &WasmSignature) -> Signature {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params.push(AbiParam::special(POINTER, ArgumentPurpose::VMContext));
    signature.params.extend(ty.params.iter().map(|&ty| AbiParam::new(machine_type(ty))));
    signature.returns.extend(ty.results.iter().map(|&ty| AbiParam::new(machine_type(ty))));
    signature
}

/// Registers for results of each kind in the `Tail` convention.
const RESULT_REGISTERS: usize = 8;

/// Whether a function's first parameter is where results go that have no register, before its
/// context: the flag `enable_multi_ret_implicit_sret`.
pub(super) fn has_result_area(ty: &WasmSignature) -> bool {
    let is_integer = |ty: &&MachineType| matches!(ty, MachineType::I32 | MachineType::I64);
    let integers = ty.results.iter().filter(is_integer).count();
    integers > RESULT_REGISTERS || ty.results.len() - integers > RESULT_REGISTERS
}

/// The convention of a runtime call.
pub(super) fn builtin_signature(builtin: Builtin) -> Signature {
    let param = |ty: BuiltinType| match ty {
        BuiltinType::I32 => AbiParam::new(types::I32).uext(),
        BuiltinType::I64 => AbiParam::new(types::I64),
    };
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.push(AbiParam::new(POINTER));
    signature.params.extend(builtin.params().iter().map(|&ty| param(ty)));
    signature.returns.push(param(builtin.result()));
    signature
}

/// The convention of entry trampolines: `(ctx, code, values, store) -> u32`.
pub(super) fn entry_signature() -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.extend([AbiParam::new(POINTER); 4]);
    signature.returns.push(AbiParam::new(types::I32).uext());
    signature
}

/// The convention of what exit trampolines call to raise an exception: `(store)`.
pub(super) fn raise_signature() -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.push(AbiParam::new(POINTER));
    signature
}

/// The convention in which exit trampolines call the host: `(record, values) -> u32`.
pub(super) fn host_signature() -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.extend([AbiParam::new(POINTER); 2]);
    signature.returns.push(AbiParam::new(types::I32).uext());
    signature
}
