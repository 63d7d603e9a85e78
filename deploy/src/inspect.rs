//! `coracle inspect`: what a module imports, exports and needs, before anybody runs it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;

use anyhow::{Context, Result};
use coracle_engine::config::Features;
use coracle_engine::module::decode::{DecodeError, decode, needed_features, to_binary};
use coracle_engine::module::types::{FuncType, GlobalType, MemoryType, TableType, TypeKind};
use coracle_engine::module::{ExportIndex, ImportType, ModuleInfo};

use crate::cli::InspectArgs;
use crate::compile::read_module;

/// Prints the report to standard output.
pub(crate) fn inspect(args: &InspectArgs) -> Result<()> {
    let path = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("opening {path}"))?;
    let bytes = read_module(file).with_context(|| format!("loading {path}"))?;
    let text = describe(&bytes).with_context(|| format!("reading {path}"))?;
    std::io::stdout().write_all(text.as_bytes()).context("writing the report")
}

/// The report on a module, binary or text. Also on one that needs a feature which is off by default:
/// who asks wants to know.
fn describe(bytes: &[u8]) -> Result<String, DecodeError> {
    let binary = to_binary(bytes)?;
    let decoded = decode(&binary, Features::all())?;
    Ok(report(&decoded.info, &needed_features(&binary)))
}

fn report(info: &ModuleInfo, needed: &[&str]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "features:  {}", features(needed));
    let _ = writeln!(out, "types:     {}", types(info));
    let _ =
        writeln!(out, "functions: {} ({} imported)", info.functions.len(), info.imported.functions);
    for table in info.tables.values() {
        let _ = writeln!(out, "table:     {}", table_type(table));
    }
    for memory in info.memories.values() {
        let _ = writeln!(out, "memory:    {}", memory_type(memory));
    }
    let _ = writeln!(out, "globals:   {} ({} imported)", info.globals.len(), info.imported.globals);
    let _ = writeln!(out, "tags:      {} ({} imported)", info.tags.len(), info.imported.tags);
    let _ = writeln!(out, "imports:   {}", info.imports.len());
    for import in &info.imports {
        let (module, name) = (plain(&import.module), plain(&import.name));
        let _ = writeln!(out, "  {module}.{name}  {}", import_type(info, import.ty));
    }
    let _ = writeln!(out, "exports:   {}", info.exports.len());
    for export in &info.exports {
        let _ = writeln!(out, "  {}  {}", plain(&export.name), export_type(info, export.index));
    }
    out
}

/// Names come from the module: nothing in them may reach a terminal as a command.
fn plain(name: &str) -> String {
    name.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// What is used beyond the first version, and what of it the engine refuses unless it is asked for.
fn features(needed: &[&str]) -> String {
    let off: Vec<&str> =
        Features::default().iter().filter(|(_, on)| !on).map(|(name, _)| name).collect();
    if needed.is_empty() {
        return "none beyond WebAssembly 1".to_owned();
    }
    let word = |name: &&str| match off.contains(name) {
        true => format!("{name} (off by default)"),
        false => (*name).to_owned(),
    };
    needed.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn types(info: &ModuleInfo) -> String {
    let count = |kind| info.types.values().filter(|ty| ty.kind() == kind).count();
    let [functions, structures, arrays] =
        [TypeKind::Func, TypeKind::Struct, TypeKind::Array].map(count);
    format!("{functions} of functions, {structures} of structures, {arrays} of arrays")
}

fn import_type(info: &ModuleInfo, ty: ImportType) -> String {
    match ty {
        ImportType::Func(ty) => func_type(info.func_type_at(ty)),
        ImportType::Table(table) => format!("table of {}", table_type(&table)),
        ImportType::Memory(memory) => format!("memory of {}", memory_type(&memory)),
        ImportType::Global(global) => global_type(&global),
        ImportType::Tag(ty) => tag_type(info.func_type_at(ty)),
    }
}

fn export_type(info: &ModuleInfo, index: ExportIndex) -> String {
    match index {
        ExportIndex::Func(func) => func_type(info.func_type(func)),
        ExportIndex::Table(table) => format!("table of {}", table_type(&info.tables[table])),
        ExportIndex::Memory(memory) => format!("memory of {}", memory_type(&info.memories[memory])),
        ExportIndex::Global(global) => global_type(&info.globals[global]),
        ExportIndex::Tag(tag) => tag_type(info.tag_type(tag)),
    }
}

fn table_type(ty: &TableType) -> String {
    let mut text = format!("{} {}, {}", ty.min, ty.element, most(ty.max));
    if ty.table64 {
        text += ", 64-bit indices";
    }
    text
}

fn memory_type(ty: &MemoryType) -> String {
    let mut text = format!("{} pages at the start, {}", ty.min, most(ty.max));
    if ty.page_size_log2 != MemoryType::PAGE_SIZE_LOG2 {
        let _ = write!(text, ", {} bytes each", 1u64 << ty.page_size_log2);
    }
    for (is, word) in [(ty.shared, "shared"), (ty.memory64, "64-bit indices")] {
        if is {
            let _ = write!(text, ", {word}");
        }
    }
    text
}

fn most(max: Option<u64>) -> String {
    max.map_or("no maximum".to_owned(), |max| format!("at most {max}"))
}

fn global_type(ty: &GlobalType) -> String {
    let mutability = if ty.mutable { "mut " } else { "" };
    format!("global {mutability}{}", ty.content)
}

fn func_type(ty: &FuncType) -> String {
    format!("func{ty}")
}

fn tag_type(ty: &FuncType) -> String {
    let params: Vec<String> = ty.params.iter().map(ToString::to_string).collect();
    format!("tag({})", params.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_of_version_3_is_described_in_full() {
        let text = br#"(module
            (type $point (struct (field i32) (field (mut f64))))
            (type $bytes (array (mut i8)))
            (import "env" "memory" (memory 1 16 shared))
            (import "env" "tag" (tag (param i32 externref)))
            (import "env" "make" (func (param (ref null $point)) (result (ref $bytes))))
            (memory (export "large") i64 2)
            (table (export "table") 3 funcref)
            (global (export "count") (mut i64) (i64.const 0))
            (tag (export "own") (param f32))
            (func (export "run") (result i32) (i32.const 1)))"#;
        let expected = "\
features:  mutable-global, reference-types, gc, exceptions, multi-memory, memory64, threads
types:     4 of functions, 1 of structures, 1 of arrays
functions: 2 (1 imported)
table:     3 funcref, no maximum
memory:    1 pages at the start, at most 16, shared
memory:    2 pages at the start, no maximum, 64-bit indices
globals:   1 (0 imported)
tags:      2 (1 imported)
imports:   3
  env.memory  memory of 1 pages at the start, at most 16, shared
  env.tag  tag(i32, externref)
  env.make  func((ref null type0)) -> ((ref type1))
exports:   5
  large  memory of 2 pages at the start, no maximum, 64-bit indices
  table  table of 3 funcref, no maximum
  count  global mut i64
  own  tag(f32)
  run  func() -> (i32)
";
        assert_eq!(describe(text).unwrap(), expected);
    }

    #[test]
    fn a_feature_that_is_off_is_named_and_no_obstacle() {
        let found = describe(br#"(module (memory 100 (pagesize 1)))"#).unwrap();
        assert!(found.starts_with("features:  custom-page-sizes (off by default)\n"), "{found}");
        assert!(found.contains("memory:    100 pages at the start, no maximum, 1 bytes each\n"));
        let found = describe(b"(module)").unwrap();
        assert!(found.starts_with("features:  none beyond WebAssembly 1\n"), "{found}");
    }

    #[test]
    fn names_are_printed_without_control_characters() {
        let found = describe(br#"(module (func (export "\1b[31m\u{f6}")))"#).unwrap();
        assert!(found.contains("  \\u{1b}[31m\u{f6}  func() -> ()\n"), "{found}");
    }
}
