//! Exceptions: `throw`, `throw_ref` and the clauses of `try_table`.
//!
//! The first call inside a `try_table` makes a landing pad for each of its clauses: a block that
//! takes the exception, loads what the clause wants of it and branches to the clause's label.

use std::collections::HashSet;

use cranelift_codegen::ir::{
    Block, BlockArg, BlockCall, ExceptionTableItem, ExceptionTag, InstBuilder, MemFlagsData, Value,
    types,
};
use wasmparser::{Catch, Operator};

use super::Translator;
use crate::abi::builtins::Builtin;
use crate::abi::layout::{self, VALUE_SIZE, exception};
use crate::abi::trap::TrapKind;
use crate::compile::CompileError;
use crate::compile::signature::{POINTER, value_type};
use crate::compile::trap::trap_code;
use crate::module::index::TagIndex;
use crate::module::limits;
use crate::module::types::ValType;

/// A `try_table` on the control stack.
pub(super) struct TryTable {
    handlers: Box<[Handler]>,
    /// The clauses that can catch something thrown inside, innermost first, of all `try_table`s
    /// around; known once a call is met.
    effective: Option<Box<[Pad]>>,
}

/// A clause of a `try_table`.
#[derive(Clone, Copy)]
struct Handler {
    /// What it catches; `None` catches everything.
    tag: Option<TagIndex>,
    /// Whether its label takes the exception itself, too.
    wants_reference: bool,
    /// The place of its label on the control stack.
    target: usize,
    /// Where the runtime goes on, once a call has made it.
    pad: Option<Block>,
}

/// A clause, by the place of its `try_table` among those on the control stack and its own place in
/// it.
#[derive(Clone, Copy)]
pub(super) struct Pad {
    table: usize,
    clause: usize,
}

/// Which exception table a call gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// That of a wasm function, which tells where its frame keeps the context.
    OfCall,
    /// That of the runtime call `throw`, which is given the context.
    OfThrow,
}

/// What is known of a `throw` inside `try_table`s of its own function.
enum Caught {
    /// This clause catches it.
    By(Handler),
    /// One of these functions' clauses may.
    Perhaps,
    No,
}

impl<'a> Translator<'a, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn exception(&mut self, op: &Operator<'_>) -> Result<bool, CompileError> {
        match op {
            Operator::TryTable { try_table } => self.try_table(try_table)?,
            Operator::Throw { tag_index } => self.throw(TagIndex::from_u32(*tag_index)),
            Operator::ThrowRef => {
                let exception = self.pop();
                self.builder.ins().trapz(exception, trap_code(TrapKind::NullReference));
                self.throw_exception(exception, self.catches());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opens the clauses of a `try_table` whose frame is about to be pushed.
    pub(super) fn open_handlers(&mut self, catches: &[Catch]) {
        let handlers = catches.iter().map(|&catch| {
            let (tag, wants_reference, label) = match catch {
                Catch::One { tag, label } => (Some(tag), false, label),
                Catch::OneRef { tag, label } => (Some(tag), true, label),
                Catch::All { label } => (None, false, label),
                Catch::AllRef { label } => (None, true, label),
            };
            let tag = tag.map(TagIndex::from_u32);
            Handler { tag, wants_reference, target: self.depth(label), pad: None }
        });
        let handlers = handlers.collect();
        self.try_tables.push(TryTable { handlers, effective: None });
    }

    /// Closes the clauses of the innermost `try_table`.
    pub(super) fn close_handlers(&mut self) {
        let Some(table) = self.try_tables.pop() else { return };
        for pad in table.handlers.iter().filter_map(|handler| handler.pad) {
            self.builder.seal_block(pad);
        }
    }

    /// Whether a `try_table` of this function is around the current place.
    pub(super) fn catches(&self) -> bool {
        !self.try_tables.is_empty()
    }

    fn tag_params(&self, tag: TagIndex) -> &'a [ValType] {
        &self.env.module.tag_type(tag).params
    }

    /// Finds out which clauses can catch something thrown at the current place. A clause behind
    /// one for the same tag, or for any, cannot.
    fn find_effective_handlers(&mut self) {
        let unknown = self.try_tables.iter().rposition(|table| table.effective.is_some());
        for n in unknown.map_or(0, |n| n + 1)..self.try_tables.len() {
            let table = &self.try_tables[n];
            let mut caught = HashSet::new();
            let own = 0..table.handlers.len();
            let own = own.map(|clause| Pad { table: n, clause });
            let outer = n.checked_sub(1).and_then(|n| self.try_tables[n].effective.as_deref());
            let mut effective = Vec::new();
            for pad in own.chain(outer.unwrap_or_default().iter().copied()) {
                let tag = self.try_tables[pad.table].handlers[pad.clause].tag;
                if caught.insert(tag) {
                    effective.push(pad);
                }
                if tag.is_none() || self.body.handled + effective.len() > limits::HANDLERS {
                    break;
                }
            }
            self.body.handled += effective.len();
            self.try_tables[n].effective = Some(effective.into());
        }
    }

    /// The clauses around the current place as an exception table's items, and those whose landing
    /// pad is new.
    pub(super) fn exception_items(&mut self, table: Table) -> (Vec<ExceptionTableItem>, Vec<Pad>) {
        self.find_effective_handlers();
        let effective = self.try_tables.last().and_then(|table| table.effective.clone());
        let effective = effective.unwrap_or_default();
        self.body.handled += effective.len();
        let mut items = Vec::with_capacity(effective.len() + 1);
        let mut new = Vec::new();
        if table == Table::OfCall {
            items.push(ExceptionTableItem::Context(self.ctx));
        }
        for pad in effective {
            let handler = &mut self.try_tables[pad.table].handlers[pad.clause];
            let block = *handler.pad.get_or_insert_with(|| {
                new.push(pad);
                let block = self.builder.create_block();
                self.builder.append_block_param(block, types::I64);
                block
            });
            let pool = &mut self.builder.func.dfg.value_lists;
            let landing = BlockCall::new(block, [BlockArg::TryCallExn(0)], pool);
            items.push(match handler.tag {
                Some(tag) => ExceptionTableItem::Tag(ExceptionTag::from_u32(tag.as_u32()), landing),
                None => ExceptionTableItem::Default(landing),
            });
        }
        (items, new)
    }

    /// Writes the code of a landing pad.
    pub(super) fn fill_landing_pad(&mut self, pad: Pad) {
        let handler = self.try_tables[pad.table].handlers[pad.clause];
        let Some(block) = handler.pad else { return };
        self.builder.switch_to_block(block);
        let payload = self.builder.block_params(block)[0];
        let values = match handler.tag {
            Some(tag) => self.load_values(tag, payload),
            None => Vec::new(),
        };
        let exception = self.builder.ins().ireduce(types::I32, payload);
        self.branch_to_handler(handler, values, |_, _| exception);
    }

    /// Branches to a clause's label with the values and, if it wants it, the exception.
    fn branch_to_handler(
        &mut self,
        handler: Handler,
        mut values: Vec<Value>,
        exception: impl FnOnce(&mut Self, &[Value]) -> Value,
    ) {
        let exception = handler.wants_reference.then(|| exception(self, &values));
        if handler.tag.is_none() {
            values.clear();
        }
        values.extend(exception);
        let (label, count) = self.label(handler.target);
        debug_assert_eq!(count, values.len(), "the validator compared the label's type");
        let args: Vec<BlockArg> = values.into_iter().map(BlockArg::Value).collect();
        self.builder.ins().jump(label, &args);
    }

    fn throw(&mut self, tag: TagIndex) {
        let at = self.stack.len() - self.tag_params(tag).len();
        let values: Vec<Value> = self.stack.drain(at..).collect();
        match self.caught(tag) {
            Caught::By(handler) => {
                self.branch_to_handler(handler, values, |this, values| {
                    this.new_exception(tag, values)
                });
                self.reachable = false;
            }
            Caught::Perhaps => {
                let exception = self.new_exception(tag, &values);
                self.throw_exception(exception, true);
            }
            Caught::No => {
                let exception = self.new_exception(tag, &values);
                self.throw_exception(exception, false);
            }
        }
    }

    /// Which clause of this function catches an exception with a tag that is thrown here.
    fn caught(&mut self, tag: TagIndex) -> Caught {
        self.find_effective_handlers();
        let Some(table) = self.try_tables.last() else { return Caught::No };
        let effective = table.effective.as_deref().unwrap_or_default();
        let is_import = |tag: TagIndex| self.env.module.is_imported_tag(tag);
        for pad in effective {
            let handler = self.try_tables[pad.table].handlers[pad.clause];
            match handler.tag {
                None => return Caught::By(handler),
                Some(other) if other == tag => return Caught::By(handler),
                // Two imports may be one tag; what the module defines is a tag of its own.
                Some(other) if is_import(other) && is_import(tag) => return Caught::Perhaps,
                Some(_) => {}
            }
        }
        Caught::No
    }

    /// Makes an exception.
    fn new_exception(&mut self, tag: TagIndex, values: &[Value]) -> Value {
        let number = self.number(tag.as_u32());
        let exception = self.builtin(Builtin::exception_new, &[number]);
        self.builder.ins().trapz(exception, trap_code(TrapKind::Host));
        let reference = self.builder.ins().uextend(POINTER, exception);
        let object = self.object(reference);
        for (&value, offset) in values.iter().zip(value_offsets()) {
            self.builder.ins().store(OBJECT, value, object, offset);
        }
        exception
    }

    /// The values of an exception with a known tag.
    fn load_values(&mut self, tag: TagIndex, reference: Value) -> Vec<Value> {
        let params = self.tag_params(tag);
        if params.is_empty() {
            return Vec::new();
        }
        let object = self.object(reference);
        let load = |(&ty, offset): (&ValType, i32)| {
            self.builder.ins().load(value_type(ty), OBJECT, object, offset)
        };
        params.iter().zip(value_offsets()).map(load).collect()
    }

    /// The address of an object, from its reference as an i64.
    fn object(&mut self, reference: Value) -> Value {
        let heap = self.load_constant(POINTER, self.ctx, layout::CTX_GC_HEAP);
        self.builder.ins().iadd(heap, reference)
    }

    /// Throws an exception that is not null. `inside`: clauses of this function may catch it.
    fn throw_exception(&mut self, exception: Value, inside: bool) {
        if inside {
            let sig = self.builtin_signature(Builtin::throw);
            let code = self.builtin_code(Builtin::throw);
            let args = [self.ctx, exception];
            let height = self.stack.len();
            self.emit_try_indirect(sig, code, &args, Table::OfThrow);
            self.stack.truncate(height);
        } else {
            self.builtin(Builtin::throw, &[exception]);
        }
        // It does not return.
        self.builder.ins().trap(trap_code(TrapKind::Host));
        self.reachable = false;
    }
}

/// Objects are mapped and aligned.
const OBJECT: MemFlagsData = MemFlagsData::trusted();

/// Where an exception's values lie.
fn value_offsets() -> impl Iterator<Item = i32> {
    (exception::VALUES as i32..).step_by(VALUE_SIZE as usize)
}
