//! Which function a program starts with, and why there is none.

use std::fmt;

use crate::module::types::{FuncType, ValType};
use crate::module::{ExportIndex, ModuleInfo};

/// The function that a command starts with.
pub(super) const START: &str = "_start";
/// The function that prepares a reactor.
pub(super) const INITIALIZE: &str = "_initialize";
/// The function that gets signals: it takes their number.
const SIGNAL: &str = "coracle_signal";
/// Most export names that a message lists.
const MAX_LISTED: usize = 8;

/// Why a module has no function to call.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingEntry {
    entry: String,
    problem: Problem,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// With the names of functions that could be called instead.
    NotExported(Vec<String>),
    NotAFunction,
    /// With the type it has.
    Type(String),
}

impl fmt::Display for MissingEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.entry.escape_debug();
        match &self.problem {
            Problem::NotAFunction => write!(f, "the module's export `{entry}` is not a function"),
            Problem::Type(found) => write!(
                f,
                "the module's function `{entry}` has the type {found}; to start with it, it must \
                 take no parameters{}",
                if self.entry == START { " and return nothing" } else { "" },
            ),
            Problem::NotExported(others) => {
                write!(f, "the module exports no function `{entry}` to start with")?;
                for (n, other) in others.iter().take(MAX_LISTED).enumerate() {
                    let before = if n == 0 { "; it could start with " } else { ", " };
                    write!(f, "{before}`#{}`", other.escape_debug())?;
                }
                if others.len() > MAX_LISTED { f.write_str(" and others") } else { Ok(()) }
            }
        }
    }
}

/// The type of an exported function.
pub(super) fn exported<'m>(module: &'m ModuleInfo, name: &str) -> Option<&'m FuncType> {
    match module.export(name)? {
        ExportIndex::Func(func) => Some(module.func_type(func)),
        _ => None,
    }
}

/// The name of the function that gets signals, if the module exports one.
pub(super) fn signal_handler(module: &ModuleInfo) -> Option<&'static str> {
    let takes_number = |ty: &&FuncType| ty.params == [ValType::I32] && ty.results.is_empty();
    exported(module, SIGNAL).filter(takes_number).map(|_| SIGNAL)
}

pub(super) fn check_entry(module: &ModuleInfo, entry: &str) -> Result<(), MissingEntry> {
    let missing = |entry: &str, problem| MissingEntry { entry: entry.to_owned(), problem };
    let Some(ty) = exported(module, entry) else {
        return Err(missing(
            entry,
            match module.export(entry) {
                Some(_) => Problem::NotAFunction,
                None => Problem::NotExported(alternatives(module)),
            },
        ));
    };
    let unit = |ty: &FuncType| ty.params.is_empty() && ty.results.is_empty();
    if !ty.params.is_empty() || (entry == START && !unit(ty)) {
        return Err(missing(entry, Problem::Type(describe(ty))));
    }
    match exported(module, INITIALIZE) {
        Some(ty) if !unit(ty) && entry != START => {
            Err(missing(INITIALIZE, Problem::Type(describe(ty))))
        }
        _ => Ok(()),
    }
}

/// Exported functions that could be called instead.
fn alternatives(module: &ModuleInfo) -> Vec<String> {
    let callable = |name: &str| exported(module, name).is_some_and(|ty| ty.params.is_empty());
    let names = module.exports.iter().map(|export| &export.name);
    names.filter(|name| *name != INITIALIZE && callable(name)).cloned().collect()
}

fn describe(ty: &FuncType) -> String {
    let list = |types: &[_]| {
        let names: Vec<String> = types.iter().map(|ty| format!("{ty:?}").to_lowercase()).collect();
        names.join(" ")
    };
    format!("({}) -> ({})", list(&ty.params), list(&ty.results))
}
