//! Signatures and functions that a function refers to, imported once each.

use std::collections::HashMap;

use cranelift_codegen::ir::{ExtFuncData, ExternalName, FuncRef, SigRef, UserExternalName};

use super::Translator;
use crate::abi::builtins::Builtin;
use crate::compile::signature::{builtin_signature, wasm_signature};
use crate::module::index::{DefinedFuncIndex, SigIndex};

/// What was imported so far.
#[derive(Default)]
pub(super) struct Entities {
    signatures: HashMap<SigIndex, SigRef>,
    functions: HashMap<DefinedFuncIndex, FuncRef>,
    builtins: HashMap<u8, SigRef>,
}

impl Entities {
    /// For the next function.
    pub(super) fn clear(&mut self) {
        self.signatures.clear();
        self.functions.clear();
        self.builtins.clear();
    }
}

impl Translator<'_, '_> {
    /// A signature of the module.
    pub(super) fn signature(&mut self, signature: SigIndex) -> SigRef {
        let builder = &mut self.builder;
        *self.entities.signatures.entry(signature).or_insert_with(|| {
            builder.import_signature(wasm_signature(&self.env.module.signatures[signature]))
        })
    }

    /// A function of the module; its name is its place in the text.
    pub(super) fn function(&mut self, func: DefinedFuncIndex, signature: SigIndex) -> FuncRef {
        let signature = self.signature(signature);
        let builder = &mut self.builder;
        *self.entities.functions.entry(func).or_insert_with(|| {
            let name = UserExternalName::new(0, func.as_u32());
            let name = builder.func.declare_imported_user_function(name);
            builder.import_function(ExtFuncData {
                name: ExternalName::user(name),
                signature,
                colocated: true,
                patchable: false,
            })
        })
    }

    /// The signature of a runtime call.
    pub(super) fn builtin_signature(&mut self, builtin: Builtin) -> SigRef {
        let builder = &mut self.builder;
        *self
            .entities
            .builtins
            .entry(builtin as u8)
            .or_insert_with(|| builder.import_signature(builtin_signature(builtin)))
    }
}
