//! Blocks, branches, traps and returns.
//!
//! A block's continuation only becomes a Cranelift block when something branches to it: most are
//! just fallen through.

use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, JumpTableData, Value};
use wasmparser::{BlockType, BrTable, Operator, TryTable};

use super::Translator;
use crate::abi::trap::TrapKind;
use crate::compile::CompileError;
use crate::compile::signature::value_type;
use crate::compile::trap::trap_code;
use crate::module::index::TypeIndex;
use crate::module::types::ValType;

/// An entry of the control stack.
pub(super) struct Frame {
    kind: Kind,
    /// Values on the stack below the frame's own.
    height: usize,
    /// The type, for blocks that come into being late.
    results: Results,
    /// The continuation, once something branches to it.
    exit: Option<Block>,
}

enum Kind {
    /// The function's body.
    Body,
    /// A body in place of a call.
    Inlined,
    Block,
    Loop {
        header: Block,
        params: usize,
    },
    If {
        /// Where the condition is false; taken when the `else` is met.
        otherwise: Block,
        /// The operands, for `otherwise`.
        params: Vec<Value>,
    },
    Else,
    /// A `try_table`: the innermost of [`Translator::try_tables`].
    Try,
    /// A frame that cannot be reached; it only balances its `end`.
    Dead,
}

/// Results of a frame.
enum Results {
    None,
    One(ValType),
    /// Those of an entry of the type section.
    Type(u32),
    /// Those of the function.
    Function(usize),
}

impl Frame {
    /// The frame of a function body.
    pub(super) fn body(results: usize) -> Frame {
        let results = Results::Function(results);
        Frame { kind: Kind::Body, height: 0, results, exit: None }
    }

    /// The frame of a body in place of a call, with its operands taken.
    pub(super) fn inlined(ty: TypeIndex, height: usize) -> Frame {
        let results = Results::Type(ty.as_u32());
        Frame { kind: Kind::Inlined, height, results, exit: None }
    }

    fn dead() -> Frame {
        Frame { kind: Kind::Dead, height: 0, results: Results::None, exit: None }
    }
}

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn control(&mut self, op: &Operator<'_>) -> Result<bool, CompileError> {
        match op {
            Operator::Block { blockty } => self.block(*blockty)?,
            Operator::Loop { blockty } => self.loop_(*blockty)?,
            Operator::If { blockty } => self.if_(*blockty)?,
            Operator::Else => self.else_(),
            Operator::End => self.end(),
            Operator::Br { relative_depth } => self.br(*relative_depth),
            Operator::BrIf { relative_depth } => self.br_if(*relative_depth),
            Operator::BrTable { targets } => self.br_table(targets)?,
            Operator::BrOnNull { relative_depth } => self.br_on_null(*relative_depth),
            Operator::BrOnNonNull { relative_depth } => self.br_on_non_null(*relative_depth),
            Operator::Return => self.return_(),
            Operator::Unreachable => {
                self.mark_cold();
                self.builder.ins().trap(trap_code(TrapKind::Unreachable));
                self.reachable = false;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Moves the block out of the way: what ends in a trap is hardly ever run.
    fn mark_cold(&mut self) {
        // There is no entry block before its first instruction.
        let Some(entry) = self.builder.func.layout.entry_block() else { return };
        if let Some(block) = self.builder.current_block().filter(|&block| block != entry) {
            self.builder.set_cold_block(block);
        }
    }

    /// What cannot be reached only opens and closes frames.
    pub(super) fn unreachable_operator(&mut self, op: &Operator<'_>) {
        match op {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => {
                self.control.push(Frame::dead());
            }
            Operator::Else => self.else_(),
            Operator::End => self.end(),
            _ => {}
        }
    }

    /// The number of operands and the results of a block.
    fn block_type(&self, ty: BlockType) -> Result<(usize, Results), CompileError> {
        Ok(match ty {
            BlockType::Empty => (0, Results::None),
            BlockType::Type(ty) => (0, Results::One(self.env.module.val_type(ty)?)),
            BlockType::FuncType(ty) => (self.type_at(ty).params.len(), Results::Type(ty)),
        })
    }

    fn result_count(&self, results: &Results) -> usize {
        match results {
            Results::None => 0,
            Results::One(_) => 1,
            Results::Type(ty) => self.type_at(*ty).results.len(),
            Results::Function(count) => *count,
        }
    }

    fn block(&mut self, ty: BlockType) -> Result<(), CompileError> {
        let (params, results) = self.block_type(ty)?;
        let height = self.stack.len() - params;
        self.control.push(Frame { kind: Kind::Block, height, results, exit: None });
        Ok(())
    }

    fn loop_(&mut self, ty: BlockType) -> Result<(), CompileError> {
        let (params, results) = self.block_type(ty)?;
        let height = self.stack.len() - params;
        let header = self.builder.create_block();
        let args = self.block_args(params);
        self.builder.ins().jump(header, &args);
        for n in height..self.stack.len() {
            let ty = self.builder.func.dfg.value_type(self.stack[n]);
            self.stack[n] = self.builder.append_block_param(header, ty);
        }
        // Not sealed before its end: branches back are still to come.
        self.builder.switch_to_block(header);
        if params == 0 {
            self.dispatches.begin(self.control.len());
        }
        let kind = Kind::Loop { header, params };
        self.control.push(Frame { kind, height, results, exit: None });
        Ok(())
    }

    pub(super) fn try_table(&mut self, try_table: &TryTable) -> Result<(), CompileError> {
        let (params, results) = self.block_type(try_table.ty)?;
        let height = self.stack.len() - params;
        self.open_handlers(&try_table.catches);
        self.control.push(Frame { kind: Kind::Try, height, results, exit: None });
        Ok(())
    }

    fn if_(&mut self, ty: BlockType) -> Result<(), CompileError> {
        let (params, results) = self.block_type(ty)?;
        let condition = self.pop();
        let height = self.stack.len() - params;
        let then = self.builder.create_block();
        let otherwise = self.builder.create_block();
        self.builder.ins().brif(condition, then, &[], otherwise, &[]);
        self.builder.seal_block(then);
        self.builder.switch_to_block(then);
        let kind = Kind::If { otherwise, params: self.stack[height..].to_vec() };
        self.control.push(Frame { kind, height, results, exit: None });
        Ok(())
    }

    fn else_(&mut self) {
        let Some(frame) = self.control.last_mut() else { return };
        let Kind::If { .. } = frame.kind else { return };
        let Kind::If { otherwise, params } = std::mem::replace(&mut frame.kind, Kind::Else) else {
            return;
        };
        let height = frame.height;
        if self.reachable {
            self.jump(self.control.len() - 1);
        }
        self.builder.seal_block(otherwise);
        self.builder.switch_to_block(otherwise);
        self.stack.truncate(height);
        self.stack.extend(params);
        self.reachable = true;
    }

    fn end(&mut self) {
        let at = self.control.len() - 1;
        match &self.control[at].kind {
            Kind::Dead => {
                self.control.pop();
                return;
            }
            Kind::Loop { header, .. } => {
                self.builder.seal_block(*header);
                self.end_dispatch(at);
            }
            Kind::If { .. } => self.end_if(at),
            Kind::Try => self.close_handlers(),
            Kind::Body | Kind::Inlined | Kind::Block | Kind::Else => {}
        }
        self.close(at);
        if let Some(Frame { kind: Kind::Body, .. }) = self.control.pop()
            && self.reachable
        {
            self.builder.ins().return_(self.stack);
            self.reachable = false;
        }
    }

    /// An `if` without `else`: operands become results where the condition is false.
    fn end_if(&mut self, at: usize) {
        let frame = &mut self.control[at];
        let Kind::If { otherwise, params } = std::mem::replace(&mut frame.kind, Kind::Else) else {
            return;
        };
        if params.is_empty() && frame.exit.is_none() {
            // Both ways meet where the condition's false edge already leads.
            frame.exit = Some(otherwise);
            return;
        }
        if self.reachable {
            self.jump(at);
        }
        self.builder.seal_block(otherwise);
        self.builder.switch_to_block(otherwise);
        let height = self.control[at].height;
        self.stack.truncate(height);
        self.stack.extend(params);
        self.reachable = true;
    }

    /// Brings what falls through and what branches together behind a frame.
    fn close(&mut self, at: usize) {
        let height = self.control[at].height;
        if let Some(exit) = self.control[at].exit {
            if self.reachable {
                self.jump(at);
            }
            if !self.dispatches.is_late(exit) {
                self.builder.seal_block(exit);
            }
            self.builder.switch_to_block(exit);
            self.stack.truncate(height);
            self.stack.extend_from_slice(self.builder.block_params(exit));
            self.reachable = true;
        } else if !self.reachable {
            self.stack.truncate(height);
        }
    }

    /// The block that a branch to the frame leads to and the number of values it takes.
    pub(super) fn label(&mut self, at: usize) -> (Block, usize) {
        if let Kind::Loop { header, params } = self.control[at].kind {
            return (header, params);
        }
        let count = self.result_count(&self.control[at].results);
        if let Some(exit) = self.control[at].exit {
            return (exit, count);
        }
        let exit = self.builder.create_block();
        let types: &[ValType] = match &self.control[at].results {
            Results::None => &[],
            Results::One(ty) => std::slice::from_ref(ty),
            Results::Type(ty) => &self.type_at(*ty).results,
            Results::Function(_) => {
                for n in 0..count {
                    let ty = self.builder.func.signature.returns[n].value_type;
                    self.builder.append_block_param(exit, ty);
                }
                &[]
            }
        };
        for &ty in types {
            self.builder.func.dfg.append_block_param(exit, value_type(ty));
        }
        self.control[at].exit = Some(exit);
        (exit, count)
    }

    /// The top values as arguments of a branch.
    fn block_args(&mut self, count: usize) -> Vec<BlockArg> {
        self.stack[self.stack.len() - count..].iter().map(|&value| value.into()).collect()
    }

    /// Where a relative depth leads on the control stack.
    pub(super) fn depth(&self, relative: u32) -> usize {
        self.control.len() - 1 - relative as usize
    }

    fn jump(&mut self, at: usize) {
        let (block, count) = self.label(at);
        let args = self.block_args(count);
        self.builder.ins().jump(block, &args);
    }

    fn br(&mut self, relative: u32) {
        let at = self.depth(relative);
        if at == 0 {
            return self.return_();
        }
        if !self.branch_past_dispatch(at) {
            self.jump(at);
        }
        self.reachable = false;
    }

    fn return_(&mut self) {
        if self.body.frame > 0 {
            self.jump(self.body.frame);
            self.reachable = false;
            return;
        }
        let count = self.builder.func.signature.returns.len();
        let at = self.stack.len() - count;
        self.builder.ins().return_(&self.stack[at..]);
        self.reachable = false;
    }

    /// Where a branch to a relative depth leads, and the values on the stack that it passes.
    pub(super) fn branch_target(&mut self, relative: u32) -> (Block, Vec<BlockArg>) {
        let at = self.depth(relative);
        let (block, count) = self.label(at);
        (block, self.block_args(count))
    }

    fn br_if(&mut self, relative: u32) {
        let condition = self.pop();
        let at = self.depth(relative);
        let (block, args) = match self.past_dispatch(at) {
            Some(target) => (target, Vec::new()),
            None => self.branch_target(relative),
        };
        let next = self.builder.create_block();
        self.builder.ins().brif(condition, block, &args, next, &[]);
        self.builder.seal_block(next);
        self.builder.switch_to_block(next);
    }

    /// Branches without a reference that is null; goes on with one that is not.
    fn br_on_null(&mut self, relative: u32) {
        if self.hint.never_null {
            return;
        }
        let reference = self.pop();
        let at = self.depth(relative);
        let (block, count) = self.label(at);
        let args = self.block_args(count);
        let next = self.builder.create_block();
        self.builder.ins().brif(reference, next, &[], block, &args);
        self.builder.seal_block(next);
        self.builder.switch_to_block(next);
        self.push(reference);
    }

    /// Branches with a reference that is not null; goes on without one that is.
    fn br_on_non_null(&mut self, relative: u32) {
        let at = self.depth(relative);
        let (block, count) = self.label(at);
        let args = self.block_args(count);
        let reference = self.pop();
        let next = self.builder.create_block();
        self.builder.ins().brif(reference, block, &args, next, &[]);
        self.builder.seal_block(next);
        self.builder.switch_to_block(next);
    }

    fn br_table(&mut self, targets: &BrTable<'_>) -> Result<(), CompileError> {
        let selector = self.pop();
        let default_at = self.depth(targets.default());
        let (block, count) = self.label(default_at);
        let args = self.block_args(count);
        let default = self.builder.func.dfg.block_call(block, &args);
        let default_block = block;
        let mut calls = Vec::with_capacity(targets.len() as usize);
        let mut blocks = Vec::with_capacity(targets.len() as usize + 1);
        for relative in targets.targets() {
            let at = self.depth(relative?);
            let (block, _) = self.label(at);
            calls.push(self.builder.func.dfg.block_call(block, &args));
            blocks.push((at, block));
        }
        if count == 0 {
            blocks.push((default_at, default_block));
            self.note_dispatch(&blocks);
        }
        let table = JumpTableData::new(default, &calls);
        let table = self.builder.create_jump_table(table);
        self.builder.ins().br_table(selector, table);
        self.reachable = false;
        Ok(())
    }
}
