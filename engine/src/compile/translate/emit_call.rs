//! The instructions by which one wasm function calls another: the only place that emits them.

use cranelift_codegen::ir::{FuncRef, Inst, InstBuilder, SigRef, Value};

use super::Translator;

/// What becomes of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// It waits for the results.
    Normal,
    /// Its frame makes room for the callee's, which returns to the caller's caller.
    Tail,
}

impl Translator<'_, '_> {
    /// Calls a function of this module and pushes its results.
    pub(super) fn emit_direct(&mut self, callee: FuncRef, args: &[Value], kind: CallKind) {
        match kind {
            CallKind::Normal => {
                let call = self.builder.ins().call(callee, args);
                self.push_results(call);
            }
            CallKind::Tail => {
                self.builder.ins().return_call(callee, args);
                self.reachable = false;
            }
        }
    }

    /// Calls code at an address and pushes its results.
    pub(super) fn emit_indirect(
        &mut self,
        sig: SigRef,
        code: Value,
        args: &[Value],
        kind: CallKind,
    ) {
        match kind {
            CallKind::Normal => {
                let call = self.builder.ins().call_indirect(sig, code, args);
                self.push_results(call);
            }
            CallKind::Tail => {
                self.builder.ins().return_call_indirect(sig, code, args);
                self.reachable = false;
            }
        }
    }

    fn push_results(&mut self, call: Inst) {
        self.stack.extend_from_slice(self.builder.inst_results(call));
    }
}
