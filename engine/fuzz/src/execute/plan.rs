//! What is called and looked at, read from the module itself, so that all engines do the same.

use wasmparser::types::EntityType;
use wasmparser::{
    AbstractHeapType, ExternalKind, HeapType, Parser, Payload, ValType, Validator, WasmFeatures,
};

use super::event::{Value, hash, mix};

/// What a parameter is to those that must make an argument for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Null {
    Func,
    Extern,
    Any,
    Exn,
}

/// An argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// A number, or a reference to something of the host.
    Value(Value),
    /// Null of a hierarchy.
    Null(Null),
}

/// Something exported.
#[derive(Debug)]
pub(super) enum Export {
    /// A function and the arguments to call it with.
    Func(Vec<Argument>),
    Global,
    Memory,
    Table,
}

/// All that is done with a module after it is instantiated: its functions called in order, then
/// its state looked at.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) exports: Vec<(String, Export)>,
}

impl Plan {
    /// Reads a valid module.
    ///
    /// # Panics
    /// When it is not valid, which is the generator's fault.
    pub(super) fn new(wasm: &[u8]) -> Plan {
        let types = match Validator::new_with_features(WasmFeatures::all()).validate_all(wasm) {
            Ok(types) => types,
            Err(error) => panic!("the generator made an invalid module: {error}"),
        };
        let mut exports = Vec::new();
        let mut seed = hash(wasm);
        for payload in Parser::new(0).parse_all(wasm) {
            let Ok(Payload::ExportSection(reader)) = payload else { continue };
            for export in reader.into_iter().flatten() {
                let plan = match export.kind {
                    ExternalKind::Func => {
                        let Some(EntityType::Func(id) | EntityType::FuncExact(id)) =
                            types.as_ref().entity_type_from_export(&export)
                        else {
                            continue;
                        };
                        let params = types[id].unwrap_func().params();
                        let arguments = params.iter().map(|&ty| {
                            seed = mix(seed, 1);
                            argument(ty, seed >> 16)
                        });
                        // Without an argument for every parameter it cannot be called.
                        let Some(arguments) = arguments.collect() else { continue };
                        Export::Func(arguments)
                    }
                    ExternalKind::Global => Export::Global,
                    ExternalKind::Memory => Export::Memory,
                    ExternalKind::Table => Export::Table,
                    _ => continue,
                };
                exports.push((export.name.to_owned(), plan));
            }
        }
        Plan { exports }
    }

    /// The functions with their arguments.
    pub(super) fn calls(&self) -> impl Iterator<Item = (&str, &[Argument])> {
        self.exports.iter().filter_map(|(name, export)| match export {
            Export::Func(arguments) => Some((&**name, &**arguments)),
            _ => None,
        })
    }
}

/// Numbers at which something usually changes.
const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    7,
    31,
    0x7f,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
];

fn number(seed: u64) -> u64 {
    let n = NUMBERS[(seed >> 3) as usize % NUMBERS.len()];
    match seed % 8 {
        0..=3 => n,
        4 => n.wrapping_neg(),
        5 => (seed >> 8) & 0xff,
        _ => mix(seed, 2),
    }
}

fn argument(ty: ValType, seed: u64) -> Option<Argument> {
    let value = number(seed);
    Some(Argument::Value(match ty {
        ValType::I32 => Value::I32(value as u32),
        ValType::I64 => Value::I64(value),
        ValType::F32 => {
            let float = f32::from_bits(value as u32);
            Value::F32(if float.is_nan() { 0x7fc0_0000 } else { float.to_bits() })
        }
        ValType::F64 => {
            let float = f64::from_bits(value);
            Value::F64(if float.is_nan() { 0x7ff8_0000_0000_0000 } else { float.to_bits() })
        }
        // Lanes that are NaNs of any kind would tell engines apart.
        ValType::V128 => Value::V128(u128::from(value & 0x3fff_ffff_3fff_ffff) * 0x1_0000_0001),
        ValType::Ref(ty) => {
            let HeapType::Abstract { shared: false, ty: heap } = ty.heap_type() else {
                return None;
            };
            if heap == AbstractHeapType::Extern && seed.is_multiple_of(2) {
                return Some(Argument::Value(Value::Extern((seed >> 9) as u32 % 1000 + 1)));
            }
            if !ty.is_nullable() {
                return None;
            }
            return Some(Argument::Null(match heap {
                AbstractHeapType::Func | AbstractHeapType::NoFunc => Null::Func,
                AbstractHeapType::Extern | AbstractHeapType::NoExtern => Null::Extern,
                AbstractHeapType::Exn | AbstractHeapType::NoExn => Null::Exn,
                AbstractHeapType::Any
                | AbstractHeapType::Eq
                | AbstractHeapType::I31
                | AbstractHeapType::Struct
                | AbstractHeapType::Array
                | AbstractHeapType::None => Null::Any,
                _ => return None,
            }));
        }
    }))
}
