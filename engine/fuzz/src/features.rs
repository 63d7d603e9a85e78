//! The engine's list of features, and what each one is called by the generator and the oracles.
//!
//! The engine's own list decides what is generated. A feature that joins it needs a row here, which
//! a test demands.

use arbitrary::Unstructured;
use coracle_engine::config::Features;
use wasm_smith::Config;

/// What a feature is to the generator and the oracles.
pub struct Row {
    /// Its name in the engine's list.
    pub name: &'static str,
    /// Whether wasmi has it.
    pub interpreter: bool,
    /// Tells the generator.
    pub generate: fn(&mut Config, bool),
    /// Tells wasmtime.
    pub wasmtime: fn(&mut wasmtime::Config),
}

/// What both always have.
fn nothing(_: &mut Config, _: bool) {}

fn always(_: &mut wasmtime::Config) {}

macro_rules! rows {
    ($($name:literal $interpreter:ident $generate:expr, $wasmtime:expr;)*) => {
        /// All rows. A feature without a field in the generator is part of another one's.
        pub const ROWS: &[Row] = &[$(Row {
            name: $name,
            interpreter: rows!($interpreter),
            generate: $generate,
            wasmtime: $wasmtime,
        }),*];
    };
    (both) => { true };
    (compiled) => { false };
}

rows! {
    "mutable-global" both nothing, always;
    "sign-extension" both |c, on| c.sign_extension_ops_enabled = on, always;
    "saturating-float-to-int" both |c, on| c.saturating_float_to_int_enabled = on, always;
    "multi-value" both |c, on| c.multi_value_enabled = on, always;
    "bulk-memory" both |c, on| c.bulk_memory_enabled = on, always;
    "reference-types" both |c, on| c.reference_types_enabled = on, always;
    "extended-const" both |c, on| c.extended_const_enabled = on, always;
    "simd" both |c, on| c.simd_enabled = on, always;
    "relaxed-simd" compiled |c, on| c.relaxed_simd_enabled = on,
        |c| { c.wasm_relaxed_simd(true); };
    "tail-call" both |c, on| c.tail_call_enabled = on, |c| { c.wasm_tail_call(true); };
    "multi-memory" both |c, on| c.max_memories = if on { 3 } else { 1 },
        |c| { c.wasm_multi_memory(true); };
    "memory64" both |c, on| c.memory64_enabled = on, |c| { c.wasm_memory64(true); };
    "exceptions" compiled |c, on| c.exceptions_enabled = on, |c| { c.wasm_exceptions(true); };
    "function-references" compiled nothing, |c| { c.wasm_function_references(true); };
    "gc" compiled |c, on| c.gc_enabled = on, |c| { c.wasm_gc(true); };
    "threads" compiled |c, on| c.threads_enabled = on,
        |c| { c.wasm_threads(true); c.shared_memory(true); };
    "wide-arithmetic" both |c, on| c.wide_arithmetic_enabled = on,
        |c| { c.wasm_wide_arithmetic(true); };
    "custom-page-sizes" both |c, on| c.custom_page_sizes_enabled = on,
        |c| { c.wasm_custom_page_sizes(true); };
}

/// The rows of the features that the engine has, those included that are off by default.
pub fn of_engine() -> impl Iterator<Item = &'static Row> {
    Features::all().iter().map(|(name, _)| {
        ROWS.iter().find(|row| row.name == name).unwrap_or_else(|| {
            panic!("the fuzzer does not know the feature {name}: give it a row in features.rs")
        })
    })
}

/// Turns on seven of eight of the engine's features that are `wanted`, and nothing else.
///
/// # Errors
/// When the input is used up.
pub fn choose(
    config: &mut Config,
    input: &mut Unstructured<'_>,
    wanted: impl Fn(&Row) -> bool,
) -> arbitrary::Result<()> {
    // A byte for each row, so that inputs keep their meaning when the engine learns a feature.
    let choices: [u8; 32] = input.arbitrary()?;
    let of_engine: Vec<_> = of_engine().map(|row| row.name).collect();
    for (row, choice) in ROWS.iter().zip(choices) {
        let on = of_engine.contains(&row.name) && wanted(row) && choice % 8 != 7;
        (row.generate)(config, on);
    }
    config.compact_imports_enabled = false;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_the_engine_has_a_row() {
        assert_eq!(of_engine().count(), Features::all().iter().count());
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
        assert!(ROWS.len() <= 32, "`choose` reads too few bytes");
    }
}
