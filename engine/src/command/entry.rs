//! Which function a program starts with, and why there is none.

use std::fmt;

use crate::module::types::{FuncType, ValType};
use crate::module::{ExportIndex, INITIALIZE, ModuleInfo, WIZER_INITIALIZE};

/// The function that a command starts with.
const START: &str = "_start";
/// The function that a program starts with once it is initialised, by the convention of Wizer, which
/// lets it take the place of `_start`.
const WIZER_RESUME: &str = "wizer.resume";
/// The function that gets signals: it takes their number.
const SIGNAL: &str = "coracle_signal";
/// Most export names that a message lists.
const MAX_LISTED: usize = 8;

/// Why a module has no function to call.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingEntry {
    entry: String,
    /// Whether it must not return anything.
    nothing: bool,
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
                if self.nothing { " and return nothing" } else { "" },
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

/// The exports that a program calls, in this order: what prepares it, then the entry. All are there.
///
/// A reactor is prepared by `_initialize`, and a program that is to be initialised as well, by `named`
/// or the convention of Wizer, unless its image is a snapshot of afterwards.
pub(super) fn calls(
    module: &ModuleInfo,
    named: Option<String>,
    entry: Option<String>,
) -> Result<Vec<String>, MissingEntry> {
    let convention = module.procedure(WIZER_INITIALIZE).map(|_| WIZER_INITIALIZE.to_owned());
    let initialize = named.or(convention);
    let resumes = initialize.is_some() && exported(module, WIZER_RESUME).is_some();
    let entry = entry.unwrap_or_else(|| if resumes { WIZER_RESUME } else { START }.to_owned());
    check(module, &entry, entry == START)?;
    let mut calls = Vec::new();
    if !module.initialized {
        let reactor = entry != START || initialize.is_some();
        if reactor && exported(module, INITIALIZE).is_some() {
            check(module, INITIALIZE, true)?;
            calls.push(INITIALIZE.to_owned());
        }
        if let Some(initialize) = initialize.filter(|name| name != INITIALIZE) {
            check(module, &initialize, true)?;
            calls.push(initialize);
        }
    }
    calls.push(entry);
    Ok(calls)
}

/// Checks that an export can be called, and returns nothing if it must not.
fn check(module: &ModuleInfo, entry: &str, nothing: bool) -> Result<(), MissingEntry> {
    let missing = |problem| Err(MissingEntry { entry: entry.to_owned(), nothing, problem });
    let Some(ty) = exported(module, entry) else {
        return missing(match module.export(entry) {
            Some(_) => Problem::NotAFunction,
            None => Problem::NotExported(alternatives(module)),
        });
    };
    if !ty.params.is_empty() || (nothing && !ty.results.is_empty()) {
        return missing(Problem::Type(describe(ty)));
    }
    Ok(())
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
