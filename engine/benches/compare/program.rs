//! The corpus: which programs there are, how each is run, and where its files lie.
//!
//! `corpus/build.sh` makes the files: `NAME.wasm`, `NAME.native` where the same sources can be built for
//! the machine, and `data/`, which a program sees as `/data`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// One program with its work, chosen to take 0.3 to 2 seconds under wasmtime.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// What it exercises, for the report.
    pub(crate) about: &'static str,
    pub(crate) args: &'static [&'static str],
    /// Whether it reads `/data`.
    pub(crate) data: bool,
    /// Whether there is a native build.
    pub(crate) native: bool,
}

const fn kernel(name: &'static str, about: &'static str, args: &'static [&'static str]) -> Program {
    Program { name, about, args, data: false, native: true }
}

/// The corpus.
pub(crate) const PROGRAMS: &[Program] = &[
    kernel("fib2", "C: recursive calls", &["42"]),
    kernel("keccak", "C: 64-bit rotations, register pressure", &["1500000"]),
    kernel("heapsort", "C: unpredictable branches, doubles", &[]),
    kernel("sieve", "C: strided byte stores", &[]),
    kernel("switch", "C: jump table in a loop", &["1500"]),
    kernel("matrix", "C: matrix products", &[]),
    kernel("minicsv", "C: byte-wise parsing, small calls", &["800"]),
    kernel("base64", "C: table look-ups", &["1600"]),
    kernel("seqhash", "C: dependent loads, 64-bit products", &[]),
    kernel("simd-loops", "C: loops vectorised by clang", &["40000"]),
    kernel("ed25519", "Rust: 64x64 to 128-bit products", &["1500"]),
    kernel("oxipng", "Rust: PNG optimiser with libdeflate", &["3"]),
    kernel("regex", "Rust: automata over text", &["250000"]),
    kernel("json", "Rust: JSON, allocation", &["40"]),
    kernel("sqlite", "C: SQLite, in memory", &[]),
    kernel("zstd", "C: Zstandard, four levels", &["2"]),
    Program {
        name: "quickjs",
        about: "C: JavaScript interpreter",
        args: &["/data/work.js"],
        data: true,
        native: true,
    },
    Program {
        name: "python",
        about: "C: CPython 3.12",
        args: &["/data/work.py", "10"],
        data: true,
        native: false,
    },
    Program {
        name: "gofmt",
        about: "Go: formats Go sources",
        args: &[
            "/data/1.go",
            "/data/2.go",
            "/data/3.go",
            "/data/1.go",
            "/data/2.go",
            "/data/3.go",
            "/data/1.go",
            "/data/2.go",
            "/data/3.go",
            "/data/1.go",
            "/data/2.go",
            "/data/3.go",
        ],
        data: true,
        native: true,
    },
    kernel("go-trees", "Go: garbage, maps, channels", &[]),
    Program {
        name: "usvg",
        about: "Rust: simplifies a drawing",
        args: &["/data/drawing.svg", "-c"],
        data: true,
        native: false,
    },
];

impl Program {
    pub(crate) fn wasm(&self, corpus: &Path) -> PathBuf {
        corpus.join(format!("{}.wasm", self.name))
    }

    pub(crate) fn native_file(&self, corpus: &Path) -> PathBuf {
        corpus.join(format!("{}.native", self.name))
    }
}

/// The programs with these names, or all of them.
///
/// # Errors
/// When there is no program of a name.
pub(crate) fn select(names: &[String]) -> Result<Vec<Program>> {
    for name in names {
        if !PROGRAMS.iter().any(|program| program.name == name) {
            let all: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
            bail!("no program `{name}` in the corpus; there are {}", all.join(", "));
        }
    }
    let chosen = |program: &&Program| names.is_empty() || names.iter().any(|n| n == program.name);
    Ok(PROGRAMS.iter().filter(chosen).copied().collect())
}
