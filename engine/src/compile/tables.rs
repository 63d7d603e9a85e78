//! What is known about each table for the whole life of an instance.
//!
//! A table that is neither imported nor exported is only used by the module's own operators, and
//! those were all [seen](super::survey).

use cranelift_entity::{EntityRef, PrimaryMap};

use super::survey::Survey;
use crate::module::index::TableIndex;
use crate::module::{ElementItems, ElementMode, ExportIndex, ModuleInfo};

/// What is known about a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TableFacts {
    /// Its size, and that it never moves.
    pub(super) size: Option<u64>,
    /// Whether it holds nothing but null and functions that the module defines, whose context is
    /// the module's own.
    pub(super) own_functions: bool,
}

/// Finds out about all tables.
pub(super) fn facts(module: &ModuleInfo, surveys: &[Survey]) -> PrimaryMap<TableIndex, TableFacts> {
    let mut own: PrimaryMap<TableIndex, bool> =
        module.tables.keys().map(|table| is_own(module, table)).collect();
    let closed = own.clone();
    let mut grown = vec![false; module.tables.len()];
    for survey in surveys {
        survey.grown_tables.iter().for_each(|&table| grown[table as usize] = true);
        survey.written_tables.iter().for_each(|&table| {
            own[TableIndex::from_u32(table)] = false;
        });
    }
    for segment in module.elements.values() {
        if let ElementMode::Active { table, .. } = segment.mode {
            own[table] &= has_own_functions(module, &segment.items);
        }
    }
    let fact = |(table, &own): (TableIndex, &bool)| {
        let ty = &module.tables[table];
        let fixed = ty.max == Some(ty.min) || closed[table] && !grown[table.index()];
        TableFacts { size: fixed.then_some(ty.min), own_functions: own && fixed }
    };
    own.iter().map(fact).collect()
}

/// Whether a table is out of reach for everything but the module, and begins as null.
fn is_own(module: &ModuleInfo, table: TableIndex) -> bool {
    let Some(defined) = table.index().checked_sub(module.imported.tables as usize) else {
        return false;
    };
    let exported = module.exports.iter().any(|export| export.index == ExportIndex::Table(table));
    !exported && module.table_inits[defined].is_none()
}

fn has_own_functions(module: &ModuleInfo, items: &ElementItems) -> bool {
    match items {
        ElementItems::Functions(functions) => {
            functions.iter().all(|&func| module.defined_func(func).is_some())
        }
        ElementItems::Expressions(_) => false,
    }
}
