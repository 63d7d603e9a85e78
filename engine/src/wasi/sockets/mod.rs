//! Sockets that guests make: the dialects that runtimes have added to the module of preview 1.
//!
//! The dialects use the same names for functions of different types, so a module's imports tell
//! which one it is written for. A module without such imports pays for one look at its import names.

mod common;
mod wamr;
mod wasmedge;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use super::link::{Entry, Host, functions};
use super::preview1::MODULE;
use super::preview1::link::FUNCTIONS as PREVIEW1;
use crate::runtime::{ExternType, FuncType, Linker, Module, ValType};

functions! {
    COMMON:
    sock_listen = common(fd: u32, backlog: u32);
}

/// Whose functions they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// WasmEdge's, of both generations: addresses are octets, ports parameters.
    WasmEdge,
    /// WAMR's: an address is a structure with its port.
    Wamr,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::WasmEdge => "WasmEdge",
            Dialect::Wamr => "WAMR",
        })
    }
}

/// Where functions come from; those before `WasmEdge` exist under the same type everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Preview1,
    Common,
    WasmEdge,
    /// The first generation only.
    WasmEdge1,
    /// The second generation only.
    WasmEdge2,
    Wamr,
}

impl Origin {
    fn dialect(self) -> Option<Dialect> {
        match self {
            Origin::Preview1 | Origin::Common => None,
            Origin::WasmEdge | Origin::WasmEdge1 | Origin::WasmEdge2 => Some(Dialect::WasmEdge),
            Origin::Wamr => Some(Dialect::Wamr),
        }
    }
}

/// All functions of sockets. A name and its parameters occur once.
const TABLES: &[(Origin, &[Entry])] = &[
    (Origin::Preview1, PREVIEW1),
    (Origin::Common, COMMON),
    (Origin::WasmEdge, wasmedge::BOTH),
    (Origin::WasmEdge1, wasmedge::FIRST),
    (Origin::WasmEdge2, wasmedge::SECOND),
    (Origin::Wamr, wamr::FUNCTIONS),
];

/// What WasmEdge puts behind a name to mean its second generation.
const SECOND_GENERATION: &str = "_v2";

/// Why a module's imports cannot be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Refusal {
    #[error(
        "the program mixes two dialects of sockets: it imports `{first}` as {one} has it and \
         `{second}` as {other} has it; build all of it for one of them"
    )]
    TwoDialects { first: String, one: Dialect, second: String, other: Dialect },
    #[error(
        "the program imports `{name}` with the type {found}, which no dialect of sockets has; it \
         exists as {known}"
    )]
    UnknownType { name: String, found: String, known: String },
}

/// Defines what a module imports of sockets beyond preview 1.
pub(super) fn add_to_linker(
    linker: &mut Linker,
    module: &Module,
    ctx: &Rc<Host>,
) -> Result<(), Refusal> {
    let mut distinctive: Option<(String, Dialect)> = None;
    for (_, name, ty) in module.imports().filter(|(from, name, _)| is_socket(from, name)) {
        let ExternType::Func(ty) = ty else { continue };
        let Some((origin, entry)) = find(name, module.engine().func_type(ty))? else { continue };
        if let Some(dialect) = origin.dialect() {
            let (first, one) = distinctive.get_or_insert_with(|| (name.to_owned(), dialect));
            if *one != dialect {
                let (first, one, second) = (first.clone(), *one, name.to_owned());
                return Err(Refusal::TwoDialects { first, one, second, other: dialect });
            }
        }
        if origin != Origin::Preview1 || name != entry.name {
            let name = match name == entry.name {
                true => Cow::Borrowed(entry.name),
                false => Cow::Owned(name.to_owned()),
            };
            (entry.define)(linker, ctx, name);
        }
    }
    Ok(())
}

/// The names of all functions of preview 1's tables and the dialects; some occur more than once.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLES.iter().flat_map(|(_, table)| table.iter().map(|entry| entry.name))
}

fn is_socket(module: &str, name: &str) -> bool {
    module == MODULE && (name.starts_with("sock_") || name == "epoll_oneoff")
}

/// The function that an import means; `None` for a name that nobody knows, which linking will tell.
fn find(name: &str, ty: &FuncType) -> Result<Option<(Origin, &'static Entry)>, Refusal> {
    let base = name.strip_suffix(SECOND_GENERATION);
    let second = |origin: Origin| !matches!(origin, Origin::WasmEdge1 | Origin::Wamr);
    let all = TABLES.iter().flat_map(|(origin, table)| table.iter().map(|entry| (*origin, entry)));
    let known = all.filter(|(origin, entry)| match base {
        Some(base) => entry.name == base && second(*origin),
        None => entry.name == name,
    });
    let mut types = Vec::new();
    for (origin, entry) in known {
        if ty.params[..] == *entry.params && ty.results[..] == [ValType::I32] {
            return Ok(Some((origin, entry)));
        }
        types.push((origin, FuncType::new(entry.params, [ValType::I32])));
    }
    if types.is_empty() {
        return Ok(None);
    }
    let shown = types.iter().map(|(origin, ty)| match origin.dialect() {
        Some(dialect) => format!("{ty} ({dialect})"),
        None => ty.to_string(),
    });
    let known = shown.collect::<Vec<_>>().join(", ");
    Err(Refusal::UnknownType { name: name.to_owned(), found: ty.to_string(), known })
}
