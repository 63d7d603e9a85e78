//! `coracle inspect`: what a module imports, exports and needs, before anybody runs it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;

use anyhow::{Context, Result};
use coracle_engine::config::Features;
use coracle_engine::module::decode::decode;
use coracle_engine::module::types::FuncType;
use coracle_engine::module::{ExportIndex, ImportType, ModuleInfo};

use crate::cli::InspectArgs;
use crate::compile::read_module;

/// Prints the report to standard output.
pub(crate) fn inspect(args: &InspectArgs) -> Result<()> {
    let path = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("opening {path}"))?;
    let bytes = read_module(file).with_context(|| format!("loading {path}"))?;
    let decoded = decode(&bytes, Features::default()).with_context(|| format!("reading {path}"))?;
    let text = report(&decoded.info);
    std::io::stdout().write_all(text.as_bytes()).context("writing the report")
}

fn report(info: &ModuleInfo) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ =
        writeln!(out, "functions: {} ({} imported)", info.functions.len(), info.imported.functions);
    for memory in info.memories.values() {
        let max = memory.max.map_or("none".to_owned(), |max| max.to_string());
        let _ = writeln!(out, "memory:    {} pages at the start, at most {max}", memory.min);
    }
    let _ = writeln!(out, "imports:   {}", info.imports.len());
    for import in &info.imports {
        let _ =
            writeln!(out, "  {}.{}  {}", import.module, import.name, import_type(info, import.ty));
    }
    let _ = writeln!(out, "exports:   {}", info.exports.len());
    for export in &info.exports {
        let _ = writeln!(out, "  {}  {}", export.name, export_type(info, export.index));
    }
    out
}

fn import_type(info: &ModuleInfo, ty: ImportType) -> String {
    match ty {
        ImportType::Func(ty) => func_type(info.func_type_at(ty)),
        ImportType::Table(_) => "table".into(),
        ImportType::Memory(memory) => format!("memory of at least {} pages", memory.min),
        ImportType::Global(global) => format!("global {}", global.content),
    }
}

fn export_type(info: &ModuleInfo, index: ExportIndex) -> String {
    match index {
        ExportIndex::Func(func) => func_type(info.func_type(func)),
        ExportIndex::Table(_) => "table".into(),
        ExportIndex::Memory(_) => "memory".into(),
        ExportIndex::Global(global) => {
            format!("global {}", info.globals[global].content)
        }
    }
}

fn func_type(ty: &FuncType) -> String {
    format!("func{ty}")
}
