//! Tests of a reference's type, as a value, a trap or a branch.

use std::sync::atomic::Ordering;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, Value, types};
use wasmparser::{AbstractHeapType, Operator};

use super::{Access, Translator};
use crate::abi::builtins::Builtin;
use crate::abi::gc::{ObjectKind, header};
use crate::abi::layout::{CTX_SUPERTYPES, SUPERTYPES, func_ref};
use crate::abi::trap::TrapKind;
use crate::compile::CompileError;
use crate::compile::signature::POINTER;
use crate::compile::trap::trap_code;
use crate::module::index::TypeIndex;
use crate::module::types::{HeapType, RefType};

/// The bits of a reference that tell what it is: `i31` (odd), of the host (2), an object (0).
const TAG: i64 = 0b11;
const I31_TAG: i64 = 1;
const HOST_TAG: i64 = 2;

/// What is known of a reference before its test.
#[derive(Clone, Copy)]
struct Known {
    nullable: bool,
    /// If it is not null and no function, it refers to an object.
    object: bool,
}

impl Known {
    fn of(ty: wasmparser::RefType) -> Known {
        let object = match ty.heap_type() {
            wasmparser::HeapType::Abstract { ty, .. } => {
                matches!(ty, AbstractHeapType::Struct | AbstractHeapType::Array)
            }
            // A defined type: a structure, an array or a function.
            _ => true,
        };
        Known { nullable: ty.is_nullable(), object }
    }
}

/// Where a test leads.
struct Ways<'a> {
    yes: (Block, &'a [BlockArg]),
    no: (Block, &'a [BlockArg]),
}

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn cast(&mut self, op: &Operator<'_>) -> Result<bool, CompileError> {
        match *op {
            Operator::RefTestNonNull { hty } => self.ref_test(self.target(hty, false)?),
            Operator::RefTestNullable { hty } => self.ref_test(self.target(hty, true)?),
            Operator::RefCastNonNull { hty } => self.ref_cast(self.target(hty, false)?),
            Operator::RefCastNullable { hty } => self.ref_cast(self.target(hty, true)?),
            Operator::BrOnCast { relative_depth, from_ref_type, to_ref_type } => {
                let (from, to) = (Known::of(from_ref_type), self.ref_type(to_ref_type)?);
                self.br_on_cast(relative_depth, from, to, true);
            }
            Operator::BrOnCastFail { relative_depth, from_ref_type, to_ref_type } => {
                let (from, to) = (Known::of(from_ref_type), self.ref_type(to_ref_type)?);
                self.br_on_cast(relative_depth, from, to, false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn target(&self, heap: wasmparser::HeapType, nullable: bool) -> Result<RefType, CompileError> {
        Ok(RefType { nullable, heap: self.env.module.heap_type(heap)? })
    }

    fn ref_type(&self, ty: wasmparser::RefType) -> Result<RefType, CompileError> {
        self.target(ty.heap_type(), ty.is_nullable())
    }

    /// What validation knows of the operator's operand.
    fn operand(&self) -> Known {
        match self.hint.operand {
            Some(wasmparser::ValType::Ref(ty)) => Known::of(ty),
            _ => Known { nullable: true, object: false },
        }
    }

    fn ref_test(&mut self, to: RefType) {
        let from = self.operand();
        let value = self.pop();
        let [yes, no, done] = std::array::from_fn(|_| self.builder.create_block());
        let result = self.builder.append_block_param(done, types::I32);
        self.branch_on_type(value, from, to, &Ways { yes: (yes, &[]), no: (no, &[]) });
        for (block, answer) in [(yes, 1), (no, 0)] {
            self.builder.seal_block(block);
            self.builder.switch_to_block(block);
            let answer = self.builder.ins().iconst(types::I32, answer);
            self.builder.ins().jump(done, &[answer.into()]);
        }
        self.builder.seal_block(done);
        self.builder.switch_to_block(done);
        self.push(result);
    }

    fn ref_cast(&mut self, to: RefType) {
        let from = self.operand();
        let value = self.peek();
        let [yes, no] = std::array::from_fn(|_| self.builder.create_block());
        self.builder.set_cold_block(no);
        self.branch_on_type(value, from, to, &Ways { yes: (yes, &[]), no: (no, &[]) });
        self.builder.seal_block(no);
        self.builder.switch_to_block(no);
        self.builder.ins().trap(trap_code(TrapKind::CastFailure));
        self.builder.seal_block(yes);
        self.builder.switch_to_block(yes);
    }

    /// Branches with the reference if its test has the outcome `when`; goes on with it if not.
    fn br_on_cast(&mut self, relative: u32, from: Known, to: RefType, when: bool) {
        let value = self.peek();
        let (target, args) = self.branch_target(relative);
        let next = self.builder.create_block();
        let (target, next_way) = ((target, &args[..]), (next, &[][..]));
        let ways = match when {
            true => Ways { yes: target, no: next_way },
            false => Ways { yes: next_way, no: target },
        };
        self.branch_on_type(value, from, to, &ways);
        self.builder.seal_block(next);
        self.builder.switch_to_block(next);
    }

    /// Leaves the current block by whether `value` is of type `to`.
    fn branch_on_type(&mut self, value: Value, from: Known, to: RefType, ways: &Ways<'_>) {
        if from.nullable {
            let other = self.builder.create_block();
            let (null, args) = if to.nullable { ways.yes } else { ways.no };
            self.builder.ins().brif(value, other, &[], null, args);
            self.continue_in(other);
        }
        match to.heap {
            HeapType::Any | HeapType::Func | HeapType::Extern | HeapType::Exn => {
                self.builder.ins().jump(ways.yes.0, ways.yes.1);
            }
            HeapType::None | HeapType::NoFunc | HeapType::NoExtern | HeapType::NoExn => {
                self.builder.ins().jump(ways.no.0, ways.no.1);
            }
            HeapType::I31 => {
                let odd = self.builder.ins().band_imm_u(value, I31_TAG);
                self.branch(odd, ways);
            }
            HeapType::Eq => {
                let tag = self.builder.ins().band_imm_u(value, TAG);
                let own = self.builder.ins().icmp_imm_u(IntCC::NotEqual, tag, HOST_TAG);
                self.branch(own, ways);
            }
            HeapType::Struct => self.branch_on_kind(value, from, ObjectKind::Struct, ways),
            HeapType::Array => self.branch_on_kind(value, from, ObjectKind::Array, ways),
            HeapType::ConcreteStruct(ty) | HeapType::ConcreteArray(ty) => {
                self.require_object(value, from, ways);
                let address = self.object_address(value);
                let flags = self.header_flags(Access::Checked);
                let offset = header::TYPE_ID as i32;
                let found = self.builder.ins().load(types::I32, flags, address, offset);
                self.branch_on_type_id(found, ty, ways);
            }
            HeapType::ConcreteFunc(ty) => {
                let flags = self.ctx_flags().with_readonly();
                let offset = func_ref::TYPE_ID as i32;
                let found = self.builder.ins().load(types::I32, flags, value, offset);
                self.branch_on_type_id(found, ty, ways);
            }
        }
    }

    fn branch_on_kind(&mut self, value: Value, from: Known, kind: ObjectKind, ways: &Ways<'_>) {
        self.require_object(value, from, ways);
        let address = self.object_address(value);
        let flags = self.header_flags(Access::Checked);
        let found = self.builder.ins().load(types::I32, flags, address, header::KIND as i32);
        let found = self.builder.ins().band_imm_u(found, i64::from(header::KIND_MASK));
        let same = self.builder.ins().icmp_imm_u(IntCC::Equal, found, i64::from(kind as u32));
        self.branch(same, ways);
    }

    /// Goes on only with a reference to an object; `from` may say that every one is.
    fn require_object(&mut self, value: Value, from: Known, ways: &Ways<'_>) {
        if from.object {
            return;
        }
        let tag = self.builder.ins().band_imm_u(value, TAG);
        let object = self.builder.create_block();
        self.builder.ins().brif(tag, ways.no.0, ways.no.1, object, &[]);
        self.continue_in(object);
    }

    /// Whether the type with the number `found` is `ty` or one below it.
    fn branch_on_type_id(&mut self, found: Value, ty: TypeIndex, ways: &Ways<'_>) {
        let expected = self.type_id(ty);
        let depth = self.env.module.type_depth(ty) as u32;
        if self.env.module.types[ty].is_final {
            let same = self.builder.ins().icmp(IntCC::Equal, found, expected);
            self.branch(same, ways);
        } else if depth < SUPERTYPES {
            let at_depth = self.supertype(found, depth);
            let same = self.builder.ins().icmp(IntCC::Equal, at_depth, expected);
            self.branch(same, ways);
        } else {
            let same = self.builder.ins().icmp(IntCC::Equal, found, expected);
            let other = self.builder.create_block();
            self.builder.ins().brif(same, ways.yes.0, ways.yes.1, other, &[]);
            self.continue_in(other);
            let below = self.builtin(Builtin::is_subtype, &[found, expected]);
            self.branch(below, ways);
        }
    }

    /// The type that stands at a depth among a type's supertypes and itself.
    fn supertype(&mut self, ty: Value, depth: u32) -> Value {
        const ROW_LOG2: i64 = (SUPERTYPES * 4).ilog2() as i64;
        self.env.uses_objects.store(true, Ordering::Relaxed);
        // Not constant: the table is replaced when a call brings new types in.
        let flags = self.ctx_flags();
        let table = self.builder.ins().load(POINTER, flags, self.ctx, CTX_SUPERTYPES as i32);
        let row = self.builder.ins().uextend(POINTER, ty);
        let row = self.builder.ins().ishl_imm_u(row, ROW_LOG2);
        let row = self.builder.ins().iadd(table, row);
        // What is behind a table that was once given out never changes.
        let flags = self.ctx_flags().with_readonly();
        self.builder.ins().load(types::I32, flags, row, (depth * 4) as i32)
    }

    fn branch(&mut self, condition: Value, ways: &Ways<'_>) {
        self.builder.ins().brif(condition, ways.yes.0, ways.yes.1, ways.no.0, ways.no.1);
    }

    /// Goes on in a block that only what was emitted so far leads to.
    fn continue_in(&mut self, block: Block) {
        self.builder.seal_block(block);
        self.builder.switch_to_block(block);
    }
}
