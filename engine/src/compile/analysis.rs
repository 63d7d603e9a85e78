//! What is found out about a whole module before anything of it is translated.

use cranelift_entity::{EntityRef, PrimaryMap};
use wasmparser::FunctionBody;

use super::CompileError;
use super::inline::Plan;
use super::survey::{self, Survey, Unchecked};
use super::tables::{self, TableFacts};
use super::translate::Hint;
use crate::config::Settings;
use crate::module::decode::DecodeError;
use crate::module::index::{DefinedFuncIndex, TableIndex};
use crate::module::types::{CompositeType, SubType};
use crate::module::{ModuleInfo, limits};

/// What is known.
pub(super) struct Analysis<'a> {
    /// Bodies of the defined functions; all valid.
    bodies: PrimaryMap<DefinedFuncIndex, FunctionBody<'a>>,
    pub(super) plan: Plan,
    tables: PrimaryMap<TableIndex, TableFacts>,
    /// By the positions of their operators, ascending.
    hints: Vec<(u32, Hint)>,
    /// Whether a body tests or casts references.
    casts: bool,
}

impl<'a> Analysis<'a> {
    /// Validates all bodies and finds out what there is to know.
    ///
    /// # Errors
    /// When a body is not valid: the first.
    pub(super) fn new(
        module: &ModuleInfo,
        bodies: Vec<Unchecked<'a>>,
        settings: &Settings,
        threads: usize,
    ) -> Result<Analysis<'a>, CompileError> {
        let code: PrimaryMap<_, _> = bodies.iter().map(|(_, body)| body.clone()).collect();
        let surveys = survey::all(bodies, threads)?;
        check_complexity(module, &surveys, &code)?;
        let plan = match settings.inlining {
            true => Plan::new(module, &surveys),
            false => Plan::without_inlining(code.len()),
        };
        let tables = tables::facts(module, &surveys);
        let casts = surveys.iter().any(|survey| survey.casts);
        let hints = surveys.into_iter().flat_map(|survey| survey.hints).collect();
        Ok(Analysis { bodies: code, plan, tables, hints, casts })
    }

    /// The defined functions.
    pub(super) fn functions(&self) -> impl Iterator<Item = DefinedFuncIndex> + use<> {
        (0..self.bodies.len()).map(DefinedFuncIndex::new)
    }

    /// A function's body.
    pub(super) fn body(&self, func: DefinedFuncIndex) -> &FunctionBody<'a> {
        &self.bodies[func]
    }

    /// What holds of a table for good.
    pub(super) fn table(&self, table: TableIndex) -> TableFacts {
        self.tables[table]
    }

    /// Whether the code may use the heap of objects, as far as is known before it is made.
    pub(super) fn may_use_objects(&self, module: &ModuleInfo) -> bool {
        let is_object = |ty: &SubType| !matches!(ty.composite, CompositeType::Func(_));
        self.casts || module.types.values().any(is_object)
    }

    /// What is known of the operands of the operator at a position.
    pub(super) fn hint(&self, offset: u32) -> Hint {
        match self.hints.binary_search_by_key(&offset, |&(offset, _)| offset) {
            Ok(n) => self.hints[n].1,
            Err(_) => Hint::default(),
        }
    }
}

/// Refuses what is valid but only made to be expensive.
fn check_complexity(
    module: &ModuleInfo,
    surveys: &[Survey],
    code: &PrimaryMap<DefinedFuncIndex, FunctionBody<'_>>,
) -> Result<(), CompileError> {
    let limit = limits::BRANCH_TARGETS as usize;
    if let Some(n) = surveys.iter().position(|survey| survey.targets as usize > limit) {
        let func = module.func_index(DefinedFuncIndex::new(n)).to_string();
        return Err(CompileError::TooComplex { func, what: "targets of branch tables", limit });
    }
    let bytes: u64 = code.values().map(|body| body.as_bytes().len() as u64).sum();
    let sums = [
        ("locals", surveys.iter().map(|s| u64::from(s.locals)).sum(), limits::LOCALS),
        (
            "values that calls and branches pass",
            surveys.iter().map(|survey| survey.passed).sum(),
            limits::PASSED_VALUES + limits::PASSED_VALUES_PER_BYTE * bytes,
        ),
    ];
    match sums.into_iter().find(|(_, count, limit)| count > limit) {
        Some((what, count, limit)) => Err(DecodeError::Limit { what, count, limit }.into()),
        None => Ok(()),
    }
}
