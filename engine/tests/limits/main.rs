//! Every limit on a module: as much is taken, one more is refused, in little memory and time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in tests, helpers too fail by panic")]

mod bodies;
mod declarations;

use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Module, TypeSection, ValType,
};

const I32: ValType = ValType::I32;

fn types(count: u64) -> TypeSection {
    let mut types = TypeSection::new();
    (0..count).for_each(|_| types.ty().function([], []));
    types
}

/// A module with one function of this body.
fn with_body(function: Function) -> Module {
    let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
    let mut types = TypeSection::new();
    types.ty().function([I32], []);
    funcs.function(0);
    code.function(&function);
    let mut module = Module::new();
    module.section(&types).section(&funcs).section(&exported()).section(&code);
    module
}

/// Exports function 0: what nobody can call need not be compiled.
fn exported() -> ExportSection {
    let mut exports = ExportSection::new();
    exports.export("f", ExportKind::Func, 0);
    exports
}
