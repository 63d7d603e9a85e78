//! Every choice that can change generated code or what is accepted, in one place.
//!
//! All of it is part of a code image's identity: an image runs only under settings equal to those
//! that made it.

use serde::{Deserialize, Serialize};

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $default:literal, $wasmparser:ident, $label:literal;)*) => {
        /// The WebAssembly proposals beyond the first version, by name: the one list.
        ///
        /// A module that uses what is off is refused by the validator. The default has all that is
        /// part of WebAssembly 3.0, and threads.
        ///
        /// ```
        /// use coracle_engine::{compile::compile, config::{Features, Settings}};
        /// let wasm = wat::parse_str("(module (func (param v128)))")?;
        /// let features = Features { simd: false, relaxed_simd: false, ..Features::default() };
        /// let refusal = compile(&wasm, &Settings { features, ..Settings::default() }).unwrap_err();
        /// assert!(refusal.to_string().contains("needs the feature `simd`, which is off"));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct Features { $($(#[$doc])* pub $name: bool,)* }

        impl Default for Features {
            fn default() -> Self { Features { $($name: $default,)* } }
        }

        impl Features {
            /// Every proposal of the list, those included that are off by default.
            #[must_use]
            pub fn all() -> Features {
                Features { $($name: true,)* }
            }

            /// None of the list: the first version of WebAssembly.
            #[must_use]
            pub fn none() -> Features {
                Features { $($name: false,)* }
            }

            /// The validator's flags for this list: nothing comes from the validator's own defaults.
            #[must_use]
            pub fn to_wasmparser(self) -> wasmparser::WasmFeatures {
                // Floats are not a proposal; the validator has a flag to forbid them. Nor is its
                // flag for types that need a heap of objects: without it even `externref` is
                // refused, while what the proposals above bring in stays the measure with it.
                let mut flags = wasmparser::WasmFeatures::FLOATS
                    .union(wasmparser::WasmFeatures::GC_TYPES);
                $(if self.$name { flags |= wasmparser::WasmFeatures::$wasmparser; })*
                flags
            }

            /// Names and validator's flags of what is off, in the list's order.
            pub(crate) fn off(self) -> impl Iterator<Item = (&'static str, wasmparser::WasmFeatures)> {
                [$((!self.$name).then_some(($label, wasmparser::WasmFeatures::$wasmparser))),*]
                    .into_iter()
                    .flatten()
            }

            /// Names and states, in the list's order.
            pub fn iter(self) -> impl Iterator<Item = (&'static str, bool)> {
                [$(($label, self.$name)),*].into_iter()
            }
        }
    };
}

features! {
    /// Import and export of mutable globals.
    mutable_global = true, MUTABLE_GLOBAL, "mutable-global";
    /// Sign-extension operators.
    sign_extension = true, SIGN_EXTENSION, "sign-extension";
    /// Saturating float-to-integer conversions.
    saturating_float_to_int = true, SATURATING_FLOAT_TO_INT, "saturating-float-to-int";
    /// Several results and block parameters.
    multi_value = true, MULTI_VALUE, "multi-value";
    /// `memory.copy`, `memory.fill`, passive segments.
    bulk_memory = true, BULK_MEMORY, "bulk-memory";
    /// `funcref`, `externref`, several tables.
    reference_types = true, REFERENCE_TYPES, "reference-types";
    /// Arithmetic in constant expressions.
    extended_const = true, EXTENDED_CONST, "extended-const";
    /// References to functions of known type, `call_ref`, tables with initial values.
    function_references = true, FUNCTION_REFERENCES, "function-references";
    /// Structures, arrays, `i31`, casts; recursion groups and declared subtypes.
    gc = true, GC, "gc";

    /// `return_call` and its kin.
    tail_call = true, TAIL_CALL, "tail-call";
    /// Tags, `throw`, `try_table`, `exnref`.
    exceptions = true, EXCEPTIONS, "exceptions";
    /// 128-bit sums, differences and products as pairs of i64. Off unless asked for: the proposal
    /// is not finished, and may still change what its instructions are.
    wide_arithmetic = false, WIDE_ARITHMETIC, "wide-arithmetic";

    /// Several memories in a module.
    multi_memory = true, MULTI_MEMORY, "multi-memory";
    /// Memories and tables with 64-bit indices.
    memory64 = true, MEMORY64, "memory64";
    /// Shared memories, atomic operators, waiting and waking. On, since programs built for threads
    /// use them and nothing else does: a module without a shared memory is the same with it.
    threads = true, THREADS, "threads";
    /// Memories whose size is counted in single bytes. Off unless asked for: the proposal is not
    /// finished, and every access to such a memory is compared with its length.
    custom_page_sizes = false, CUSTOM_PAGE_SIZES, "custom-page-sizes";

    /// Vectors of 128 bits.
    simd = true, SIMD, "simd";
    /// Vector operators whose results depend on the machine where it is faster.
    relaxed_simd = true, RELAXED_SIMD, "relaxed-simd";
}

/// How hard the compiler tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OptLevel {
    /// No optimisation; fastest to compile.
    None,
    /// Full optimisation for speed.
    #[default]
    Speed,
}

/// Which CPUs compiled code is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cpu {
    /// This machine's, with everything useful that it has.
    #[default]
    Native,
    /// Every one that the engine supports (x86-64-v2): images that machines of several kinds share.
    Baseline,
}

/// Where compiled code finds the base of linear memory 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Addressing {
    /// In the context: any number of instances and memories in a process.
    #[default]
    Generic,
    /// At the fixed address [`DEDICATED_BASE`], compiled in: one main instance in a process.
    Dedicated,
}

/// Address of byte 0 of linear memory 0 under [`Addressing::Dedicated`].
///
/// Low enough that base + static offset fits a signed 32-bit displacement, and above what a
/// position-dependent executable and its early heap occupy.
pub const DEDICATED_BASE: u64 = 0x1000_0000;

/// Address space reserved from byte 0 of a memory with 32-bit indices, in bytes.
pub const MEMORY_RESERVATION: u64 = 4 << 30;

/// Inaccessible address space after the reservation, in bytes: accesses whose static offset is
/// below this need no bounds check.
pub const MEMORY_GUARD: u64 = 2 << 30;

/// Most address space reserved from byte 0 of a memory with 64-bit indices, in bytes, unless it is
/// larger from the start. It is less when the memory's maximum or the store's limit is.
pub const MEMORY64_RESERVATION: u64 = 64 << 30;

/// Inaccessible address space after the reservation of a memory with 64-bit indices, in bytes:
/// accesses whose static offset is below this compare their index alone with the length.
pub const MEMORY64_GUARD: u64 = 64 << 20;

/// What a compilation depends on besides the module and the host's CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// Accepted proposals.
    pub features: Features,
    /// Optimisation.
    pub opt_level: OptLevel,
    /// CPUs.
    pub cpu: Cpu,
    /// Base of memory 0.
    pub addressing: Addressing,
    /// Replace calls by the callee's body where it pays.
    pub inlining: bool,
    /// Run Cranelift's verifier on every function: on in all tests.
    pub verifier: bool,
    /// Check the register allocation of every function; slow. On in fuzzing.
    pub regalloc_checker: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            features: Features::default(),
            opt_level: OptLevel::default(),
            addressing: Addressing::default(),
            inlining: true,
            cpu: Cpu::default(),
            verifier: false,
            regalloc_checker: false,
        }
    }
}

impl Settings {
    /// Those for programs that have a process to themselves: what the shim's guests and
    /// `coracle run` run under.
    #[must_use]
    pub fn program() -> Settings {
        Settings { addressing: Addressing::Dedicated, ..Settings::default() }
    }

    /// The same for a first start, where functions are compiled while the guest waits.
    #[must_use]
    pub fn first(self) -> Settings {
        Settings { opt_level: OptLevel::None, inlining: false, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the README's table of features, as `(label, default)`.
    fn described() -> Vec<(&'static str, bool)> {
        let readme = include_str!("../README.md");
        let table = readme.split("## What works").nth(1).unwrap().split("\n## ").next().unwrap();
        let cells = |row: &'static str| {
            let mut cells = row.split('|').skip(1).map(str::trim);
            let label = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((label, cells.next()?))
        };
        let rows = table.lines().filter(|line| line.starts_with('|')).filter_map(cells);
        rows.map(|(label, default)| match default {
            "on" => (label, true),
            "off" => (label, false),
            _ => panic!("{label}: neither on nor off by default, but {default}"),
        })
        .collect()
    }

    #[test]
    fn the_readme_lists_every_feature_with_its_default() {
        assert_eq!(described(), Features::default().iter().collect::<Vec<_>>());
    }
}
