//! Calls: direct, of imports, through tables, and of the runtime.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Inst, InstBuilder, Value, types};
use wasmparser::Operator;

use super::Translator;
use crate::abi::builtins::Builtin;
use crate::abi::layout::{self, func_import, func_ref};
use crate::abi::trap::TrapKind;
use crate::compile::signature::POINTER;
use crate::compile::trap::trap_code;
use crate::module::index::{FuncIndex, SigIndex, TableIndex, TypeIndex};
use crate::module::types::FuncType;

impl<'a> Translator<'a, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn call(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::Call { function_index } => {
                self.call_function(FuncIndex::from_u32(function_index));
            }
            Operator::CallIndirect { type_index, table_index } => {
                let ty = TypeIndex::from_u32(type_index);
                self.call_through_table(ty, TableIndex::from_u32(table_index));
            }
            _ => return false,
        }
        true
    }

    /// An entry of the type section.
    pub(super) fn type_at(&self, ty: u32) -> &'a FuncType {
        self.env.module.func_type_at(TypeIndex::from_u32(ty))
    }

    fn call_function(&mut self, func: FuncIndex) {
        let signature = self.env.module.functions[func].signature;
        if let Some(defined) = self.env.module.defined_func(func) {
            let callee = self.function(defined, signature);
            let args = self.pop_args(signature, self.ctx);
            let call = self.builder.ins().call(callee, &args);
            return self.push_results(call);
        }
        let import = self.env.layout.imported_func(func.as_u32());
        let code = self.load_constant(POINTER, self.ctx, import + func_import::CODE);
        let ctx = self.load_constant(POINTER, self.ctx, import + func_import::CTX);
        self.call_code(signature, code, ctx);
    }

    fn call_through_table(&mut self, ty: TypeIndex, table: TableIndex) {
        let index = self.pop();
        let callee = self.table_element(table, index);
        self.builder.ins().trapz(callee, trap_code(TrapKind::UninitializedElement));
        self.check_type(callee, ty);
        // Not movable: they must stay behind the check for null.
        let flags = self.ctx_flags().with_readonly();
        let code = self.builder.ins().load(POINTER, flags, callee, func_ref::CODE as i32);
        let ctx = self.builder.ins().load(POINTER, flags, callee, func_ref::CTX as i32);
        self.call_code(self.env.module.signature_at(ty), code, ctx);
    }

    /// Traps unless a function reference record is of a type.
    fn check_type(&mut self, callee: Value, ty: TypeIndex) {
        let flags = self.ctx_flags().with_readonly();
        let found = self.builder.ins().load(types::I32, flags, callee, func_ref::TYPE_ID as i32);
        let type_id = self.env.layout.type_id(ty.as_u32());
        let expected = self.load_constant(types::I32, self.ctx, type_id);
        let same = self.builder.ins().icmp(IntCC::Equal, found, expected);
        self.builder.ins().trapz(same, trap_code(TrapKind::IndirectCallTypeMismatch));
    }

    fn call_code(&mut self, signature: SigIndex, code: Value, ctx: Value) {
        let sig = self.signature(signature);
        let args = self.pop_args(signature, ctx);
        let call = self.builder.ins().call_indirect(sig, code, &args);
        self.push_results(call);
    }

    fn pop_args(&mut self, signature: SigIndex, ctx: Value) -> Vec<Value> {
        let signature = &self.env.module.signatures[signature];
        let count = signature.params.len();
        self.passed += count + signature.results.len();
        let at = self.stack.len() - count;
        let mut args = Vec::with_capacity(count + 1);
        args.push(ctx);
        args.extend(self.stack.drain(at..));
        args
    }

    fn push_results(&mut self, call: Inst) {
        self.stack.extend_from_slice(self.builder.inst_results(call));
    }

    /// Calls the runtime and gives its result.
    pub(super) fn builtin(&mut self, builtin: Builtin, args: &[Value]) -> Value {
        let sig = self.builtin_signature(builtin);
        let table = self.load_constant(POINTER, self.ctx, layout::CTX_BUILTINS);
        let code = self.load_constant(POINTER, table, builtin.offset());
        let mut all = Vec::with_capacity(args.len() + 1);
        all.push(self.ctx);
        all.extend_from_slice(args);
        let call = self.builder.ins().call_indirect(sig, code, &all);
        self.builder.inst_results(call)[0]
    }

    /// Calls the runtime and traps if it reports an error.
    pub(super) fn checked_builtin(&mut self, builtin: Builtin, args: &[Value]) {
        let status = self.builtin(builtin, args);
        self.builder.ins().trapnz(status, trap_code(TrapKind::Host));
    }

    /// A number of the module (of a memory, a table, a segment) as an argument.
    pub(super) fn number(&mut self, number: u32) -> Value {
        self.builder.ins().iconst(types::I32, i64::from(number))
    }
}
