//! What is found out about a whole module before anything of it is translated.

use cranelift_entity::{EntityRef, PrimaryMap};
use wasmparser::FunctionBody;

use super::CompileError;
use super::inline::Plan;
use super::survey::{self, Unchecked};
use super::tables::{self, TableFacts};
use super::translate::Hint;
use crate::config::Settings;
use crate::module::ModuleInfo;
use crate::module::index::{DefinedFuncIndex, TableIndex};

/// What is known.
pub(super) struct Analysis<'a> {
    /// Bodies of the defined functions; all valid.
    bodies: PrimaryMap<DefinedFuncIndex, FunctionBody<'a>>,
    pub(super) plan: Plan,
    tables: PrimaryMap<TableIndex, TableFacts>,
    /// By the positions of their operators, ascending.
    hints: Vec<(u32, Hint)>,
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
        let plan = match settings.inlining {
            true => Plan::new(module, &surveys),
            false => Plan::without_inlining(code.len()),
        };
        let tables = tables::facts(module, &surveys);
        let hints = surveys.into_iter().flat_map(|survey| survey.hints).collect();
        Ok(Analysis { bodies: code, plan, tables, hints })
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

    /// What is known of the operands of the operator at a position.
    pub(super) fn hint(&self, offset: u32) -> Hint {
        match self.hints.binary_search_by_key(&offset, |&(offset, _)| offset) {
            Ok(n) => self.hints[n].1,
            Err(_) => Hint::default(),
        }
    }
}
