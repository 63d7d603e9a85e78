//! Modules to run, from a fuzzer's input.

use arbitrary::{Result, Unstructured};
use wasm_smith::{Config, MemoryOffsetChoices};
use wasmparser::{Operator, Parser, Payload};

use super::host;
use crate::features;

/// Loop turns, calls and bulk elements that a module may spend, all its functions together.
const FUEL: u32 = 2_000;

/// A module and who runs it.
pub(super) struct Case {
    pub(super) wasm: Vec<u8>,
    pub(super) interpreter: bool,
    pub(super) wasmtime: bool,
    /// Run only half of our configurations: those of generic addressing, or the others.
    pub(super) half: Option<bool>,
}

/// Generates a module.
pub(super) fn case(input: &mut Unstructured<'_>) -> Result<Case> {
    let interpreter = input.ratio(3, 5)?;
    let wasmtime = !interpreter || input.ratio(1, 4)?;
    let half = Some(input.arbitrary()?);
    let mut config = config(input)?;
    features::choose(&mut config, input, |row| row.interpreter || !interpreter)?;
    let mut module = wasm_smith::Module::new(config, input)?;
    // It only refuses functions of arbitrary bytes, which are not asked for.
    if module.ensure_termination(FUEL).is_err() {
        return Err(arbitrary::Error::IncorrectFormat);
    }
    let wasm = module.to_bytes();
    if waits(&wasm) {
        return Err(arbitrary::Error::IncorrectFormat);
    }
    Ok(Case { wasm, interpreter, wasmtime, half })
}

fn config(input: &mut Unstructured<'_>) -> Result<Config> {
    let host = input.ratio(1, 3)?;
    let imports = if host { wat::parse_str(host::IMPORTS).ok() } else { None };
    Ok(Config {
        available_imports: imports,
        max_imports: if host { 6 } else { 0 },
        allow_start_export: input.ratio(1, 4)?,
        // NaNs of different bits are allowed by the specification and would tell engines apart.
        canonicalize_nans: true,
        disallow_traps: input.ratio(7, 10)?,
        export_everything: true,
        min_types: 4,
        min_funcs: 3,
        max_funcs: input.int_in_range(3..=10)?,
        max_instructions: input.int_in_range(20..=400)?,
        max_types: 20,
        max_globals: 10,
        max_tables: 3,
        max_tags: 4,
        max_data_segments: 6,
        max_element_segments: 6,
        max_elements: 20,
        // Small enough to hash, and growing up to a declared maximum never fails.
        max_memory32_bytes: 1 << 20,
        max_memory64_bytes: 1 << 20,
        memory_max_size_required: true,
        max_table_elements: 200,
        table_max_size_required: true,
        limit_arrays_in_const_exprs: true,
        memory_offset_choices: MemoryOffsetChoices(60, 30, 10),
        ..Config::default()
    })
}

/// Whether the module may wait for another thread, of which there is none.
fn waits(wasm: &[u8]) -> bool {
    Parser::new(0).parse_all(wasm).flatten().any(|payload| {
        let Payload::CodeSectionEntry(body) = payload else { return false };
        let Ok(operators) = body.get_operators_reader() else { return false };
        operators.into_iter().flatten().any(|operator| {
            matches!(
                operator,
                Operator::MemoryAtomicWait32 { .. } | Operator::MemoryAtomicWait64 { .. }
            )
        })
    })
}
