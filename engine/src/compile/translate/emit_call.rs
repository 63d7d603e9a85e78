//! The instructions by which a wasm function calls another, or the runtime to throw: the only place
//! that emits them.
//!
//! Inside a `try_table` a call is a `try_call`, which ends its block: the translation goes on in
//! the block where the results arrive.

use cranelift_codegen::ir::{
    Block, BlockArg, BlockCall, ExceptionTable, ExceptionTableData, FuncRef, InstBuilder, SigRef,
    Value,
};

use super::Translator;
use super::exception::{Pad, Table};

/// What becomes of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// It waits for the results.
    Normal,
    /// Its frame makes room for the callee's, which returns to the caller's caller. What the callee
    /// throws is not caught by the `try_table`s around the call.
    Tail,
}

impl Translator<'_, '_> {
    /// Calls a function of this module and pushes its results.
    pub(super) fn emit_direct(
        &mut self,
        callee: FuncRef,
        sig: SigRef,
        args: &[Value],
        kind: CallKind,
    ) {
        if kind == CallKind::Tail {
            self.builder.ins().return_call(callee, args);
            self.reachable = false;
        } else if self.catches() {
            let (table, next, pads) = self.exception_table(sig, Table::OfCall);
            self.builder.ins().try_call(callee, args, table);
            self.after_try_call(next, &pads);
        } else {
            let call = self.builder.ins().call(callee, args);
            self.stack.extend_from_slice(self.builder.inst_results(call));
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
        if kind == CallKind::Tail {
            self.builder.ins().return_call_indirect(sig, code, args);
            self.reachable = false;
        } else if self.catches() {
            self.emit_try_indirect(sig, code, args, Table::OfCall);
        } else {
            let call = self.builder.ins().call_indirect(sig, code, args);
            self.stack.extend_from_slice(self.builder.inst_results(call));
        }
    }

    /// Calls code at an address inside a `try_table` and pushes its results.
    pub(super) fn emit_try_indirect(
        &mut self,
        sig: SigRef,
        code: Value,
        args: &[Value],
        table: Table,
    ) {
        let (table, next, pads) = self.exception_table(sig, table);
        self.builder.ins().try_call_indirect(code, args, table);
        self.after_try_call(next, &pads);
    }

    /// Where a call inside a `try_table` goes on: the table, the block that takes the results, and
    /// the landing pads that have no code yet.
    fn exception_table(&mut self, sig: SigRef, table: Table) -> (ExceptionTable, Block, Vec<Pad>) {
        let next = self.builder.create_block();
        let results = self.builder.func.dfg.signatures[sig].returns.len();
        for n in 0..results {
            let ty = self.builder.func.dfg.signatures[sig].returns[n].value_type;
            self.builder.append_block_param(next, ty);
        }
        let (items, pads) = self.exception_items(table);
        let pool = &mut self.builder.func.dfg.value_lists;
        let results = (0..results as u32).map(BlockArg::TryCallRet);
        let normal = BlockCall::new(next, results, pool);
        let table = ExceptionTableData::new(sig, normal, items);
        (self.builder.func.dfg.exception_tables.push(table), next, pads)
    }

    fn after_try_call(&mut self, next: Block, pads: &[Pad]) {
        for &pad in pads {
            self.fill_landing_pad(pad);
        }
        self.builder.seal_block(next);
        self.builder.switch_to_block(next);
        self.stack.extend_from_slice(self.builder.block_params(next));
    }
}
