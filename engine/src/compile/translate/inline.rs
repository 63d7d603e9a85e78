//! A callee's body in place of a call.
//!
//! The body becomes a block of the caller: its parameters and locals are variables of the caller,
//! its results are the block's, and a return is a branch to the block's end. What no return leads
//! to needs no block at all, so the body of a small function runs on from the caller's code.

use cranelift_codegen::ir::{Type, Value};
use cranelift_frontend::Variable;

use super::Translator;
use super::control::Frame;
use crate::compile::CompileError;
use crate::compile::position::InlinedPosition;
use crate::module::index::FuncIndex;

/// The body that is being translated.
#[derive(Clone, Copy)]
pub(super) struct Body {
    pub(super) func: FuncIndex,
    /// Its first local among those of all bodies that are open.
    pub(super) locals: usize,
    /// Its frame on the control stack.
    pub(super) frame: usize,
    /// Position of the call that it stands for; `None` for the function itself.
    pub(super) call: Option<u32>,
    /// Handlers that its calls have got so far.
    pub(super) handled: usize,
}

impl Body {
    /// The function itself.
    pub(super) fn outermost(func: FuncIndex) -> Body {
        Body { func, locals: 0, frame: 0, call: None, handled: 0 }
    }
}

/// The locals of all open bodies, and variables that closed ones leave behind.
///
/// Variables are used again because each costs the frontend memory for every block.
#[derive(Default)]
pub(super) struct Locals {
    open: Vec<(Variable, Type)>,
    free: Vec<(Variable, Type)>,
}

impl Locals {
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.free.clear();
    }

    /// How many there are in all open bodies.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }
}

impl Translator<'_, '_> {
    /// The variable of a local of the body.
    pub(super) fn variable(&self, local: u32) -> Variable {
        self.locals.open[self.body.locals + local as usize].0
    }

    /// The body's next local, with its first value.
    pub(super) fn add_local(&mut self, ty: Type, value: Value) {
        let free = self.locals.free.iter().rposition(|&(_, free)| free == ty);
        let variable = match free {
            Some(at) => self.locals.free.swap_remove(at).0,
            None => self.builder.declare_var(ty),
        };
        self.builder.def_var(variable, value);
        self.locals.open.push((variable, ty));
    }

    /// Translates the callee's body instead of a call at `offset`.
    pub(super) fn inline(&mut self, func: FuncIndex, offset: u32) -> Result<(), CompileError> {
        let Some(defined) = self.env.module.defined_func(func) else { return Ok(()) };
        let ty = self.env.module.functions[func].ty;
        let params = self.env.module.func_type_at(ty).params.len();
        let height = self.stack.len() - params;
        let body = Body {
            func,
            locals: self.locals.open.len(),
            frame: self.control.len(),
            call: Some(self.position(offset)),
            handled: 0,
        };
        let caller = std::mem::replace(&mut self.body, body);
        for n in height..self.stack.len() {
            let value = self.stack[n];
            self.add_local(self.builder.func.dfg.value_type(value), value);
        }
        self.stack.truncate(height);
        self.control.push(Frame::inlined(ty, height));
        self.translate_body(self.env.analysis.body(defined).get_binary_reader())?;
        let left = self.locals.open.drain(self.body.locals..);
        self.locals.free.extend(left);
        self.body = caller;
        Ok(())
    }

    /// What stands for a position in the body: itself, or an entry in the list of positions that
    /// belong to bodies in place of calls.
    pub(super) fn position(&mut self, offset: u32) -> u32 {
        match self.body.call {
            None => offset,
            Some(caller) => {
                let func = self.body.func.as_u32();
                self.inlined.push(InlinedPosition { func, offset, caller })
            }
        }
    }
}
