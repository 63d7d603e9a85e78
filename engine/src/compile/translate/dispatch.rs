//! Branches past a dispatch.
//!
//! A compiler whose own control flow has no structure (Go's is one) puts a function into one loop
//! that begins with a `br_table` on a local, and writes every jump as: set the local, branch to the
//! loop. Where the local is known to be a constant, such a branch leads straight to the target in
//! the table here. So the conditions and loops of the source become ones again, instead of all
//! meeting in one place.

use cranelift_codegen::ir::{Block, InstBuilder, InstructionData, Opcode, Value};
use cranelift_entity::EntitySet;
use cranelift_frontend::Variable;
use wasmparser::{BlockType, Operator};

use super::Translator;

/// Targets of a dispatch times locals of the function up to which branches go past it: in the worst
/// case the frontend makes a value of each local for each target, all at once at the loop's end. The
/// largest functions of Go's own compiler have a tenth of it.
const MOST_VALUES: usize = 4_000_000;

/// The dispatches of the loops that are open.
#[derive(Default)]
pub(super) struct Dispatches {
    begun: Begun,
    open: Vec<Dispatch>,
    /// Blocks that are sealed with their loop: until then, branches past its dispatch may come.
    late: EntitySet<Block>,
}

/// How a loop begins, as long as only what belongs to a dispatch has been seen of it.
#[derive(Clone, Copy, Default)]
enum Begun {
    /// With something else.
    #[default]
    Otherwise,
    /// With blocks. The number is the loop's place on the control stack.
    Loop(usize),
    /// With blocks, then this local's value.
    Selector(usize, u32),
}

/// A dispatch that a loop begins with.
struct Dispatch {
    /// The loop's place on the control stack.
    at: usize,
    selector: Variable,
    targets: Vec<Block>,
    default: Block,
    late: Vec<Block>,
}

impl Dispatches {
    pub(super) fn clear(&mut self) {
        self.begun = Begun::Otherwise;
        self.open.clear();
        self.late.clear();
    }

    /// A loop without parameters begins.
    pub(super) fn begin(&mut self, at: usize) {
        self.begun = Begun::Loop(at);
    }

    /// Looks at an operator before it is translated: does it go on with a dispatch?
    pub(super) fn watch(&mut self, op: &Operator<'_>) {
        self.begun = match (self.begun, op) {
            (Begun::Loop(at), Operator::Block { blockty: BlockType::Empty }) => Begun::Loop(at),
            (Begun::Loop(at), Operator::LocalGet { local_index }) => {
                Begun::Selector(at, *local_index)
            }
            (Begun::Selector(..), Operator::BrTable { .. }) => self.begun,
            _ => Begun::Otherwise,
        };
    }

    /// Whether a block is sealed with its loop and not before.
    pub(super) fn is_late(&self, block: Block) -> bool {
        self.late.contains(block)
    }
}

impl Translator<'_, '_> {
    /// Notes a table of branches that pass nothing, if it is the dispatch of a loop. `targets`, the
    /// last of which is the default, are places on the control stack and blocks.
    pub(super) fn note_dispatch(&mut self, targets: &[(usize, Block)]) {
        let Begun::Selector(at, local) = self.dispatches.begun else { return };
        let Some((&(_, default), _)) = targets.split_last() else { return };
        if targets.len().saturating_mul(self.locals.open()) > MOST_VALUES {
            return;
        }
        let mut late = Vec::new();
        for &(target, block) in targets {
            if target > at && self.dispatches.late.insert(block) {
                late.push(block);
            }
        }
        let targets = targets[..targets.len() - 1].iter().map(|&(_, block)| block).collect();
        let selector = self.variable(local);
        self.dispatches.open.push(Dispatch { at, selector, targets, default, late });
    }

    /// Branches past a loop's dispatch where it is known what that would do; `false` if not.
    pub(super) fn branch_past_dispatch(&mut self, at: usize) -> bool {
        let Some(target) = self.past_dispatch(at) else { return false };
        self.builder.ins().jump(target, &[]);
        true
    }

    /// Where a branch to a loop leads, if the loop begins with a dispatch on what is known.
    pub(super) fn past_dispatch(&mut self, at: usize) -> Option<Block> {
        let n = self.dispatches.open.iter().rposition(|dispatch| dispatch.at == at)?;
        let selector = self.builder.use_var(self.dispatches.open[n].selector);
        let selector = self.constant_bits(selector)?;
        let dispatch = &self.dispatches.open[n];
        let target = usize::try_from(selector).ok().and_then(|n| dispatch.targets.get(n));
        Some(target.copied().unwrap_or(dispatch.default))
    }

    /// A loop ends: no more branches past its dispatch.
    pub(super) fn end_dispatch(&mut self, at: usize) {
        if self.dispatches.open.last().is_some_and(|dispatch| dispatch.at == at)
            && let Some(dispatch) = self.dispatches.open.pop()
        {
            dispatch.late.into_iter().for_each(|block| self.builder.seal_block(block));
        }
    }

    /// The bits of a value that is a constant, zero-extended.
    pub(super) fn constant_bits(&self, value: Value) -> Option<u64> {
        let dfg = &self.builder.func.dfg;
        let value = dfg.resolve_aliases(value);
        match dfg.insts[dfg.value_def(value).inst()?] {
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => {
                let unused = 64 - dfg.value_type(value).bits();
                Some(imm.bits() as u64 & (u64::MAX >> unused))
            }
            _ => None,
        }
    }
}
