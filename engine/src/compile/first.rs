//! One function at a time, when it is wanted: what the first start of a module runs on.
//!
//! The module is validated as a whole, and everything of its image is made but the functions' code:
//! see [`lazy`] for what stands in its place.

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::isa::TargetIsa;

use super::analysis::Analysis;
use super::func::{Code, Compiler, Job};
use super::link::Linker;
use super::signature::has_result_area;
use super::translate::Environment;
use super::{CompileError, data, isa, names};
use crate::abi::lazy::{self, Stub};
use crate::config::Settings;
use crate::image::{ImageBuilder, Meta, Pieces, Section};
use crate::module::index::DefinedFuncIndex;
use crate::module::{ExportIndex, ModuleInfo, decode};

/// Room for code and for its tables, as multiples of the bodies' bytes: code that is not optimised
/// has some four times their bytes, its tables some three times.
const CODE_PER_BYTE: u64 = 16;
const TABLES_PER_BYTE: u64 = 8;
/// Room for each besides that, in bytes.
const LEAST_ROOM: u64 = 4 << 20;
/// Most room for each, in bytes: the reach of a relative call, halved.
const MOST_ROOM: u64 = 256 << 20;

/// A valid module, whose functions can be compiled in any order, on any number of threads.
pub(crate) struct Source<'a> {
    env: Environment<'a>,
    isa: &'a dyn TargetIsa,
}

/// Makes code of functions, on one thread.
pub(crate) struct FunctionCompiler<'a>(Compiler<'a>);

/// A function's code, ready to be placed anywhere in the text.
pub(crate) struct Compiled {
    pub(crate) bytes: Box<[u8]>,
    /// A power of two, in bytes.
    pub(crate) align: u32,
    /// Where distances to functions' stubs go, four bytes each, and their numbers among the defined
    /// functions.
    pub(crate) calls: Vec<(u32, u32)>,
    /// As [`lazy`] says.
    pub(crate) tables: Vec<u8>,
}

/// Validates a module, makes its lazy image of at most `most` bytes, and lends what compiles its
/// functions.
///
/// # Errors
/// Those of [`compile`](super::compile) that concern the whole module, or what `then` gives.
pub(crate) fn prepare<R, E: From<CompileError>>(
    wasm: &[u8],
    settings: &Settings,
    threads: usize,
    most: u64,
    then: impl FnOnce(Source<'_>, Pieces) -> Result<R, E>,
) -> Result<R, E> {
    let binary = decode::to_binary(wasm).map_err(CompileError::from)?;
    let name_missing = |error| match error {
        CompileError::Decode(error) => {
            decode::name_missing(error, &binary, settings.features).into()
        }
        other => other,
    };
    let target = isa::target(settings)?;
    let decoded = decode::decode(&binary, settings.features);
    let decode::Decoded { mut info, bodies, data, names } =
        decoded.map_err(|error| name_missing(error.into()))?;
    let mut image = ImageBuilder::new();
    data::lay_out(&mut info, &data, &mut image);
    names::store(&info, &names, &mut image);

    let analysis = Analysis::new(&info, bodies, settings, threads).map_err(name_missing)?;
    let env = Environment::new(&info, &analysis, settings, &target);
    let mut compiler = Compiler::new(&env, &*target.isa);
    let mut linker = Linker::after_stubs(&*target.isa, &info, image);
    let signatures = || info.signatures.keys();
    for job in signatures().map(Job::Entry).chain(signatures().map(Job::Exit)) {
        linker.append(&compiler.run(job)?)?;
    }
    let mut image = linker.finish();
    let bytes: u64 = analysis.functions().map(|f| analysis.body(f).as_bytes().len() as u64).sum();
    reserve(&mut image, bytes, info.defined_funcs(), most);
    let mut meta = Meta {
        target: target.isa.triple().to_string(),
        cpu_features: target.cpu_features.clone(),
        settings: *settings,
        module: info.clone(),
    };
    meta.module.uses_objects = analysis.may_use_objects(&info);
    let pieces = image.finish_pieces(&meta).map_err(CompileError::from)?;
    then(Source { env, isa: &*target.isa }, pieces)
}

/// Leaves room for what is to come. What an image may have at most is for the code first of all.
fn reserve(image: &mut ImageBuilder, bytes: u64, functions: usize, most: u64) {
    let entries = (lazy::ENTRIES + functions * lazy::ENTRY_SIZE) as u64;
    let text = image.section(Section::Text).len() as u64;
    let used: u64 = Section::all().map(|section| image.section(section).len() as u64).sum();
    let left = most.saturating_sub(used + entries + (1 << 20));
    let room = |factor: u64| bytes.saturating_mul(factor).saturating_add(LEAST_ROOM);
    image.reserve(Section::Text, text + room(CODE_PER_BYTE).min(MOST_ROOM).min(left / 3 * 2));
    image.reserve(Section::LazyFuncs, entries);
    image.reserve(Section::LazyTables, room(TABLES_PER_BYTE).min(MOST_ROOM).min(left / 3));
}

impl Source<'_> {
    /// Defined functions.
    pub(crate) fn functions(&self) -> u32 {
        self.env.module.defined_funcs() as u32
    }

    /// A compiler for one thread.
    pub(crate) fn compiler(&self) -> FunctionCompiler<'_> {
        FunctionCompiler(Compiler::new(&self.env, self.isa))
    }

    /// The functions that a program starts with, as far as they are the module's own.
    pub(crate) fn first(&self) -> impl Iterator<Item = u32> {
        let module = self.env.module;
        let started =
            ["_initialize", "_start"].into_iter().filter_map(|name| match module.export(name) {
                Some(ExportIndex::Func(func)) => Some(func),
                _ => None,
            });
        let all = module.start.into_iter().chain(started);
        all.filter_map(|func| module.defined_func(func)).map(DefinedFuncIndex::as_u32)
    }
}

impl FunctionCompiler<'_> {
    /// Compiles a function by its number among the defined ones.
    ///
    /// # Errors
    /// When it is over a limit or the code generator refuses it.
    pub(crate) fn compile(&mut self, func: u32) -> Result<Compiled, CompileError> {
        let code = self.0.run(Job::Function(DefinedFuncIndex::from_u32(func)))?;
        let calls = code.calls.iter().map(|call| match (call.kind, call.addend) {
            (Reloc::X86CallPCRel4, -4) => Ok((call.offset, call.target.as_u32())),
            (kind, addend) => Err(CompileError::Relocation {
                func: format!("number {func} of the defined ones"),
                target: format!("{kind:?}{addend:+} of function {}", call.target.as_u32()),
            }),
        });
        let calls = calls.collect::<Result<_, _>>()?;
        Ok(Compiled {
            calls,
            align: code.placement.align.max(STUB_ALIGN),
            tables: tables(&code),
            bytes: code.bytes,
        })
    }
}

/// Functions begin here as elsewhere, in bytes.
const STUB_ALIGN: u32 = 16;

/// The tables of one function.
fn tables(code: &Code) -> Vec<u8> {
    let clauses = code.catches.iter().flat_map(|site| &site.clauses);
    let counts =
        [code.traps.len(), code.positions.len(), code.catches.len(), clauses.clone().count()];
    let mut words: Vec<u32> = counts.iter().map(|&count| count as u32).collect();
    // The length, which is known at the end.
    words.push(0);
    words.extend(code.traps.iter().map(|&(offset, _)| offset));
    words.extend(code.positions.iter().map(|&(offset, _)| offset));
    words.extend(code.positions.iter().map(|&(_, position)| position));
    words.extend(code.catches.iter().map(|site| site.return_address));
    let mut end = 0;
    for site in &code.catches {
        end += site.clauses.len() as u32;
        words.extend([site.frame, end]);
    }
    words.extend(clauses.flat_map(|clause| [clause.tag, clause.context, clause.landing_pad]));
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(code.traps.iter().map(|&(_, kind)| kind));
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let length = bytes.len() as u32;
    bytes[lazy::TABLES_HEAD - 4..lazy::TABLES_HEAD].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The text before the trampolines.
pub(super) fn stubs(info: &ModuleInfo) -> Vec<u8> {
    let mut text = lazy::PROLOGUE.to_vec();
    for func in 0..info.defined_funcs() as u32 {
        let index = info.func_index(DefinedFuncIndex::from_u32(func));
        let signature = &info.signatures[info.functions[index].signature];
        let ask = if has_result_area(signature) { lazy::ASK_FOR_MANY } else { lazy::ASK };
        text.extend(Stub::of(func).bytes(ask));
    }
    text
}
