//! Calls: direct, of imports, through tables and references, and of the runtime.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, TrapCode, Type, Value, types};
use wasmparser::Operator;

use super::Translator;
use super::emit_call::CallKind;
use crate::abi::builtins::Builtin;
use crate::abi::layout::{self, func_import, func_ref};
use crate::abi::trap::TrapKind;
use crate::compile::signature::POINTER;
use crate::compile::trap::trap_code;
use crate::module::index::{FuncIndex, SigIndex, TableIndex, TypeIndex};
use crate::module::types::{FuncType, HeapType};

impl<'a> Translator<'a, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn call(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::Call { function_index } => {
                self.call_function(FuncIndex::from_u32(function_index), CallKind::Normal);
            }
            Operator::ReturnCall { function_index } => {
                self.call_function(FuncIndex::from_u32(function_index), CallKind::Tail);
            }
            Operator::CallIndirect { type_index, table_index } => {
                let (ty, table) =
                    (TypeIndex::from_u32(type_index), TableIndex::from_u32(table_index));
                self.call_through_table(ty, table, CallKind::Normal);
            }
            Operator::ReturnCallIndirect { type_index, table_index } => {
                let (ty, table) =
                    (TypeIndex::from_u32(type_index), TableIndex::from_u32(table_index));
                self.call_through_table(ty, table, CallKind::Tail);
            }
            Operator::CallRef { type_index } => {
                self.call_reference(TypeIndex::from_u32(type_index), CallKind::Normal);
            }
            Operator::ReturnCallRef { type_index } => {
                self.call_reference(TypeIndex::from_u32(type_index), CallKind::Tail);
            }
            _ => return false,
        }
        true
    }

    /// An entry of the type section.
    pub(super) fn type_at(&self, ty: u32) -> &'a FuncType {
        self.env.module.func_type_at(TypeIndex::from_u32(ty))
    }

    fn call_function(&mut self, func: FuncIndex, kind: CallKind) {
        let signature = self.env.module.functions[func].signature;
        if let Some(defined) = self.env.module.defined_func(func) {
            let callee = self.function(defined, signature);
            let args = self.pop_args(signature, self.ctx);
            let sig = self.signature(signature);
            return self.emit_direct(callee, sig, &args, kind);
        }
        let import = self.env.layout.imported_func(func.as_u32());
        let code = self.load_constant(POINTER, self.ctx, import + func_import::CODE);
        let ctx = self.load_constant(POINTER, self.ctx, import + func_import::CTX);
        self.call_code(signature, code, ctx, kind);
    }

    fn call_through_table(&mut self, ty: TypeIndex, table: TableIndex, kind: CallKind) {
        let index = self.pop();
        let callee = self.table_element(table, index);
        let element = self.env.module.tables[table].element;
        // The first access through null faults, since page 0 is never mapped: that is the trap.
        let null = element.nullable.then(|| trap_code(TrapKind::UninitializedElement));
        let null = match self.is_known_as(element.heap, ty) {
            true => null,
            false => {
                self.check_type(callee, ty, null);
                None
            }
        };
        let code = self.load_field(POINTER, callee, func_ref::CODE, null);
        let ctx = match self.env.analysis.table(table).own_functions {
            true => self.ctx,
            false => self.load_field(POINTER, callee, func_ref::CTX, None),
        };
        self.call_code(self.env.module.signature_at(ty), code, ctx, kind);
    }

    fn call_reference(&mut self, ty: TypeIndex, kind: CallKind) {
        let callee = self.pop();
        self.check_null(callee);
        let code = self.load_field(POINTER, callee, func_ref::CODE, None);
        let ctx = self.load_field(POINTER, callee, func_ref::CTX, None);
        self.call_code(self.env.module.signature_at(ty), code, ctx, kind);
    }

    /// A field of a function reference record; with the trap that it is if there is none.
    fn load_field(&mut self, ty: Type, record: Value, field: u32, null: Option<TrapCode>) -> Value {
        // Not movable: it must stay behind what shows that there is a record.
        let flags = self.ctx_flags().with_readonly().with_trap_code(null);
        self.builder.ins().load(ty, flags, record, field as i32)
    }

    /// Whether validation has proved that functions of a heap type are of a type.
    fn is_known_as(&self, heap: HeapType, ty: TypeIndex) -> bool {
        match heap {
            HeapType::ConcreteFunc(found) => self.env.module.declares_subtype(found, ty),
            _ => false,
        }
    }

    /// Traps unless a function reference record is of a type or one below it; `null` is the trap
    /// if there is no record.
    fn check_type(&mut self, callee: Value, ty: TypeIndex, null: Option<TrapCode>) {
        let found = self.load_field(types::I32, callee, func_ref::TYPE_ID, null);
        let type_id = self.env.layout.type_id(ty.as_u32());
        let expected = self.load_constant(types::I32, self.ctx, type_id);
        let same = self.builder.ins().icmp(IntCC::Equal, found, expected);
        if self.env.module.types[ty].is_final {
            self.builder.ins().trapz(same, trap_code(TrapKind::IndirectCallTypeMismatch));
            return;
        }
        let other = self.builder.create_block();
        let right = self.builder.create_block();
        self.builder.ins().brif(same, right, &[], other, &[]);
        self.builder.seal_block(other);
        self.builder.set_cold_block(other);
        self.builder.switch_to_block(other);
        let below = self.builtin(Builtin::is_subtype, &[found, expected]);
        self.builder.ins().trapz(below, trap_code(TrapKind::IndirectCallTypeMismatch));
        self.builder.ins().jump(right, &[]);
        self.builder.seal_block(right);
        self.builder.switch_to_block(right);
    }

    fn call_code(&mut self, signature: SigIndex, code: Value, ctx: Value, kind: CallKind) {
        let sig = self.signature(signature);
        let args = self.pop_args(signature, ctx);
        self.emit_indirect(sig, code, &args, kind);
    }

    fn pop_args(&mut self, signature: SigIndex, ctx: Value) -> Vec<Value> {
        let signature = &self.env.module.signatures[signature];
        let count = signature.params.len();
        let at = self.stack.len() - count;
        let mut args = Vec::with_capacity(count + 1);
        args.push(ctx);
        args.extend(self.stack.drain(at..));
        args
    }

    /// Calls the runtime and gives its result.
    pub(super) fn builtin(&mut self, builtin: Builtin, args: &[Value]) -> Value {
        let sig = self.builtin_signature(builtin);
        let code = self.builtin_code(builtin);
        let mut all = Vec::with_capacity(args.len() + 1);
        all.push(self.ctx);
        all.extend_from_slice(args);
        let call = self.builder.ins().call_indirect(sig, code, &all);
        self.builder.inst_results(call)[0]
    }

    /// Where a runtime call lies.
    pub(super) fn builtin_code(&mut self, builtin: Builtin) -> Value {
        let table = self.load_constant(POINTER, self.ctx, layout::CTX_BUILTINS);
        self.load_constant(POINTER, table, builtin.offset())
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
