//! A first look at every body: validates it, and notes what deciding about it needs.
//!
//! Nothing is translated before the whole module is valid, so a body may be translated as often as
//! it is of use: for itself, and in place of calls of it.

use wasmparser::{FrameKind, FuncToValidate, FuncValidator, FuncValidatorAllocations};
use wasmparser::{FunctionBody, Operator, OperatorsReader, ValidatorResources};

use super::translate::Hint;
use super::{CompileError, parallel};
use crate::module::index::FuncIndex;

/// Bodies that are looked at together: enough that handing them over costs nothing.
const BATCH: usize = 64;

/// A body that was not looked at yet, with what validates it.
pub(super) type Unchecked<'a> = (FuncToValidate<ValidatorResources>, FunctionBody<'a>);

/// What is known about a valid body.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Operators that become instructions, about.
    pub(super) size: u32,
    /// Locals, parameters among them.
    pub(super) locals: u32,
    /// Whether it ends with a call that takes the place of its own frame.
    pub(super) tail_calls: bool,
    /// Direct calls that can be reached, in order.
    pub(super) calls: Vec<CallSite>,
    /// What is known of the operands of operators, by the positions of these, ascending.
    pub(super) hints: Vec<(u32, Hint)>,
    /// Values that its branches and calls pass; see [`passed`].
    pub(super) passed: u64,
    /// Targets of its branch tables.
    pub(super) targets: u32,
    /// Whether it tests or casts references.
    pub(super) casts: bool,
    /// Tables that grow.
    pub(super) grown_tables: Vec<u32>,
    /// Tables whose elements are written.
    pub(super) written_tables: Vec<u32>,
}

/// A direct call.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallSite {
    /// Position of the operator in the module.
    pub(super) offset: u32,
    pub(super) callee: FuncIndex,
    /// Loops around it in the same body.
    pub(super) loops: u32,
    /// Whether it takes the place of its own frame.
    pub(super) tail: bool,
}

/// Looks at all bodies, in order.
///
/// # Errors
/// When one is not valid: the first.
pub(super) fn all(bodies: Vec<Unchecked<'_>>, threads: usize) -> Result<Vec<Survey>, CompileError> {
    let mut surveys = Vec::with_capacity(bodies.len());
    let mut bodies = bodies.into_iter();
    let batches = std::iter::from_fn(|| {
        let batch: Vec<_> = bodies.by_ref().take(BATCH).collect();
        (!batch.is_empty()).then_some(batch)
    });
    let worker = || {
        let mut allocations = FuncValidatorAllocations::default();
        move |batch: Vec<Unchecked<'_>>| {
            batch.into_iter().map(|body| look(body, &mut allocations)).collect()
        }
    };
    parallel::run(batches, threads, worker, |batch: Vec<Survey>| {
        surveys.extend(batch);
        Ok(())
    })?;
    Ok(surveys)
}

fn look(
    (validate, body): Unchecked<'_>,
    allocations: &mut FuncValidatorAllocations,
) -> Result<Survey, CompileError> {
    let mut validator = validate.into_validator(std::mem::take(allocations));
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader)?;
    let mut survey = Survey { locals: validator.len_locals(), ..Survey::default() };
    let mut loops = 0;
    let mut operators = OperatorsReader::new(reader);
    while !operators.eof() {
        let offset = operators.original_position();
        let operator = operators.read()?;
        let frame = validator.get_control_frame(0);
        let reachable = frame.is_some_and(|frame| !frame.unreachable);
        match operator {
            Operator::Loop { .. } => loops += 1,
            Operator::End if frame.is_some_and(|frame| frame.kind == FrameKind::Loop) => loops -= 1,
            _ => {}
        }
        let hint = Hint::new(&operator, &validator);
        if hint != Hint::default() {
            survey.hints.push((offset as u32, hint));
        }
        validator.op(offset, &operator)?;
        if reachable {
            survey.note(&operator, offset as u32, loops);
            survey.passed += passed(&operator, &validator);
        }
    }
    operators.finish()?;
    *allocations = validator.into_allocations();
    Ok(survey)
}

impl Survey {
    fn note(&mut self, operator: &Operator<'_>, offset: u32, loops: u32) {
        self.size += match operator {
            // What only names or moves values, or shapes the code.
            Operator::LocalGet { .. }
            | Operator::LocalSet { .. }
            | Operator::LocalTee { .. }
            | Operator::I32Const { .. }
            | Operator::I64Const { .. }
            | Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::End
            | Operator::Else
            | Operator::Drop
            | Operator::Nop => 0,
            Operator::Call { function_index } => {
                let callee = FuncIndex::from_u32(*function_index);
                self.calls.push(CallSite { offset, callee, loops, tail: false });
                CALL
            }
            Operator::ReturnCall { function_index } => {
                let callee = FuncIndex::from_u32(*function_index);
                self.calls.push(CallSite { offset, callee, loops, tail: true });
                self.tail_calls = true;
                CALL
            }
            Operator::CallIndirect { .. } | Operator::CallRef { .. } => 2 * CALL,
            Operator::ReturnCallIndirect { .. } | Operator::ReturnCallRef { .. } => {
                self.tail_calls = true;
                CALL
            }
            Operator::RefTestNonNull { .. }
            | Operator::RefTestNullable { .. }
            | Operator::RefCastNonNull { .. }
            | Operator::RefCastNullable { .. }
            | Operator::BrOnCast { .. }
            | Operator::BrOnCastFail { .. } => {
                self.casts = true;
                1
            }
            Operator::TableGrow { table } => {
                self.grown_tables.push(*table);
                self.written_tables.push(*table);
                CALL
            }
            Operator::TableSet { table }
            | Operator::TableFill { table }
            | Operator::TableInit { table, .. }
            | Operator::TableCopy { dst_table: table, .. } => {
                self.written_tables.push(*table);
                CALL
            }
            Operator::BrTable { targets } => {
                self.targets = self.targets.saturating_add(targets.len());
                2 + targets.len()
            }
            Operator::MemoryCopy { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryInit { .. }
            | Operator::MemoryGrow { .. } => CALL,
            _ => 1,
        };
    }
}

/// How much an operator of any number of operands and results makes the code generator do: the
/// values, more often the more of them there are, since all are alive at once.
fn passed(operator: &Operator<'_>, validator: &FuncValidator<ValidatorResources>) -> u64 {
    let times = match operator {
        Operator::BrTable { targets } => u64::from(targets.len()) + 1,
        Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        | Operator::TryTable { .. }
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        | Operator::BrOnNull { .. }
        | Operator::BrOnNonNull { .. }
        | Operator::BrOnCast { .. }
        | Operator::BrOnCastFail { .. }
        | Operator::Return
        | Operator::Call { .. }
        | Operator::CallIndirect { .. }
        | Operator::CallRef { .. }
        | Operator::ReturnCall { .. }
        | Operator::ReturnCallIndirect { .. }
        | Operator::ReturnCallRef { .. }
        | Operator::Throw { .. }
        | Operator::StructNew { .. }
        | Operator::ArrayNewFixed { .. } => 1,
        _ => return 0,
    };
    let (operands, results) = operator.operator_arity(validator).unwrap_or_default();
    let values = u64::from(operands) + u64::from(results);
    times * values * (values / 32).max(1)
}

/// Size of a call, with its arguments and what it makes the caller save.
const CALL: u32 = 4;
