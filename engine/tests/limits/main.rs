//! Every limit on a module: as much is taken, one more is refused, in little memory and time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in tests, helpers too fail by panic")]

mod bodies;
mod declarations;

use std::borrow::Borrow;

use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, Module,
    Section, TypeSection, ValType,
};

const I32: ValType = ValType::I32;

fn types(count: u64) -> TypeSection {
    let mut types = TypeSection::new();
    (0..count).for_each(|_| types.ty().function([], []));
    types
}

/// A module that has nothing but this section.
fn only(section: &impl Section) -> Module {
    let mut module = Module::new();
    module.section(section);
    module
}

/// Functions of type 0 with these bodies.
fn functions(
    bodies: impl IntoIterator<Item = impl Borrow<Function>>,
) -> (FunctionSection, CodeSection) {
    let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
    for body in bodies {
        funcs.function(0);
        code.function(body.borrow());
    }
    (funcs, code)
}

/// A body that does nothing.
fn empty() -> Function {
    let mut empty = Function::new([]);
    empty.instruction(&Instruction::End);
    empty
}

/// A module of these types, with one exported function of type 0 with this body.
fn with_types_and_body(types: &TypeSection, body: &Function) -> Module {
    let (funcs, code) = functions([body]);
    let mut module = Module::new();
    module.section(types).section(&funcs).section(&exported()).section(&code);
    module
}

/// A module with one function of this body, which has a parameter.
fn with_body(body: Function) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([I32], []);
    with_types_and_body(&types, &body)
}

/// Exports function 0: what nobody can call need not be compiled.
fn exported() -> ExportSection {
    let mut exports = ExportSection::new();
    exports.export("f", ExportKind::Func, 0);
    exports
}
