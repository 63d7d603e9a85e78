//! `Module`: a code image mapped for execution, and the questions asked of its tables.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cranelift_entity::EntityRef;

use super::check;
use super::engine::Engine;
use super::registry::TypeId;
use super::sys::{self, Mapping};
use super::types::ExternType;
use crate::abi::layout::Layout;
use crate::abi::trap::TrapKind;
use crate::config::Settings;
use crate::image::{
    ANY_TAG, CodeImage, HEADER_SIZE, Header, INLINED, ImageError, InlinedPosition, MAX_SIZE, Meta,
    OWN_CONTEXT, PAGE, Section,
};
use crate::module::index::{DefinedFuncIndex, FuncIndex, SigIndex, TypeIndex};
use crate::module::{ExportIndex, ImportType, ModuleInfo};

/// Why a module cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum LoadError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("cannot read the code image: {0}")]
    Read(#[source] io::Error),
    #[error("cannot map the code image: {0}")]
    Map(#[source] io::Error),
    #[error(
        "cannot map the code image executable: {0}; it must not lie on a file system mounted noexec"
    )]
    Execute(#[source] io::Error),
    #[error("cannot make an anonymous file for the code image: {0}")]
    Anonymous(#[source] io::Error),
}

/// Compiled code, mapped and ready to be instantiated any number of times. Cheap to clone.
///
/// The text is a shared, read-only, executable mapping of the image file; it is never writable.
/// Trap, address and name tables are read from the mapping only when a trap needs them.
///
/// Only images that this engine itself compiled may be loaded: the file is machine code.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings, runtime::{Engine, Module}};
/// let wat = r#"(module (import "host" "log" (func (param i32))) (memory (export "memory") 2 8))"#;
/// let engine = Engine::new();
/// let image = compile(&wat::parse_str(wat)?, &Settings::default())?;
/// let module = Module::from_bytes(&engine, &image)?;
/// for (from, name, ty) in module.imports() {
///     assert_eq!((from, name), ("host", "log"));
///     assert_eq!(ty.describe(&engine), "function (i32) -> ()");
/// }
/// let exports: Vec<_> = module.exports().map(|(name, ty)| (name, ty.describe(&engine))).collect();
/// assert_eq!(exports, [("memory", "memory with 2 to 8 pages".to_owned())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Module {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    file: File,
    map: Mapping,
    header: Header,
    meta: Meta,
    layout: Layout,
    type_ids: Box<[TypeId]>,
}

/// A function and the position in it that a code address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodePosition {
    pub(super) func: FuncIndex,
    pub(super) wasm_offset: Option<u32>,
}

impl Module {
    /// Maps a code image from its file. The file must not change or shrink while it is mapped.
    ///
    /// # Errors
    /// When the file cannot be mapped, is not an image of this engine's build, is damaged, or needs
    /// another machine.
    pub fn from_file(engine: &Engine, file: &File) -> Result<Module, LoadError> {
        let file = file.try_clone().map_err(LoadError::Read)?;
        Module::map(engine, file)
    }

    /// Puts the bytes of a code image into an anonymous file and maps that.
    ///
    /// # Errors
    /// As [`Module::from_file`].
    pub fn from_bytes(engine: &Engine, image: &[u8]) -> Result<Module, LoadError> {
        CodeImage::new(image)?;
        let file = sys::anonymous_file(image).map_err(LoadError::Anonymous)?;
        Module::map(engine, file)
    }

    fn map(engine: &Engine, file: File) -> Result<Module, LoadError> {
        let size = file.metadata().map_err(LoadError::Read)?.len();
        if size < HEADER_SIZE as u64 {
            let mut head = vec![0; size as usize];
            file.read_exact_at(&mut head, 0).map_err(LoadError::Read)?;
            return Err(Header::decode(&head, size)
                .map(|_| ImageError::Magic)
                .unwrap_or_else(|e| e)
                .into());
        }
        if size > MAX_SIZE {
            return Err(ImageError::TooLarge { size }.into());
        }
        let map = Mapping::file(&file, size as usize).map_err(LoadError::Map)?;
        // SAFETY: the mapping has `size` bytes and lives to the end of this function. Its pages can
        // only fault if someone shrinks the file, which the caller's contract excludes.
        let image = CodeImage::new(unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) })?;
        let meta = image.meta()?;
        check::machine(&meta)?;
        check::module(&meta.module, &image)?;
        let header = image.header().clone();
        let text = header.range(Section::Text);
        let text = text.start as usize..text.end.next_multiple_of(PAGE) as usize;
        map.make_executable(text).map_err(LoadError::Execute)?;
        let layout = meta.module.layout();
        let type_ids = engine.type_ids(&meta.module);
        let engine = engine.clone();
        let inner = Inner { engine, file, map, header, meta, layout, type_ids };
        Ok(Module { inner: Arc::new(inner) })
    }

    /// What the module imports, defines and exports.
    #[must_use]
    pub fn info(&self) -> &ModuleInfo {
        &self.inner.meta.module
    }

    /// What it needs, in order: module name, name, type.
    pub fn imports(&self) -> impl ExactSizeIterator<Item = (&str, &str, ExternType)> {
        let imports = self.info().imports.iter();
        imports.map(|i| (&*i.module, &*i.name, self.import_type(&i.ty)))
    }

    /// What its instances export, in order: name and type, with sizes as at the start.
    pub fn exports(&self) -> impl ExactSizeIterator<Item = (&str, ExternType)> {
        self.info().exports.iter().map(|export| (&*export.name, self.export_type(export.index)))
    }

    fn export_type(&self, index: ExportIndex) -> ExternType {
        let (info, name) = (self.info(), |ty| self.type_id(ty));
        match index {
            ExportIndex::Func(func) => ExternType::Func(name(info.functions[func].ty)),
            ExportIndex::Table(table) => ExternType::Table(info.tables[table].map(name)),
            ExportIndex::Memory(memory) => ExternType::Memory(info.memories[memory]),
            ExportIndex::Global(global) => ExternType::Global(info.globals[global].map(name)),
            ExportIndex::Tag(tag) => ExternType::Tag(name(info.tags[tag])),
        }
    }

    /// The settings that the code was compiled with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.meta.settings
    }

    /// The engine that numbers this module's types.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// The engine's numbers of the module's types, in order.
    pub(super) fn type_ids(&self) -> &[TypeId] {
        &self.inner.type_ids
    }

    /// The engine's number of a type of the module.
    pub(super) fn type_id(&self, ty: TypeIndex) -> TypeId {
        self.inner.type_ids[ty.index()]
    }

    /// The type of an import as the host sees it.
    pub(super) fn import_type(&self, ty: &ImportType) -> ExternType {
        let name = |ty| self.type_id(ty);
        match *ty {
            ImportType::Func(ty) => ExternType::Func(self.type_id(ty)),
            ImportType::Table(ty) => ExternType::Table(ty.map(name)),
            ImportType::Memory(ty) => ExternType::Memory(ty),
            ImportType::Global(ty) => ExternType::Global(ty.map(name)),
            ImportType::Tag(ty) => ExternType::Tag(self.type_id(ty)),
        }
    }

    /// The image file and the place of its memory section, for mapping initial memory.
    pub(super) fn memory_section(&self) -> (&File, u64) {
        (&self.inner.file, self.inner.header.range(Section::Memory).start)
    }

    /// Bytes of a data segment in the image's data section; checked when loading.
    pub(super) fn data(&self, range: Range<u64>) -> &[u8] {
        &self.section(Section::Data)[range.start as usize..range.end as usize]
    }

    fn section(&self, section: Section) -> &[u8] {
        let range = self.inner.header.range(section);
        let range = range.start as usize..range.end as usize;
        // SAFETY: `Header::decode` checked that every section lies within the file's length, which
        // is the mapping's; the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.inner.map.as_ptr().add(range.start), range.len()) }
    }

    /// Addresses of the machine code.
    pub(super) fn text(&self) -> Range<usize> {
        let range = self.inner.header.range(Section::Text);
        let start = self.inner.map.address();
        start + range.start as usize..start + range.end as usize
    }

    /// Where a defined function begins.
    pub(super) fn function(&self, func: DefinedFuncIndex) -> *const u8 {
        self.code(func.index())
    }

    /// The trampoline from the host into functions of a signature.
    pub(super) fn entry_trampoline(&self, sig: SigIndex) -> *const u8 {
        self.code(self.info().defined_funcs() + sig.index())
    }

    /// The trampoline from compiled code into host functions of a signature.
    pub(super) fn exit_trampoline(&self, sig: SigIndex) -> *const u8 {
        let info = self.info();
        self.code(info.defined_funcs() + info.signatures.len() + sig.index())
    }

    fn code(&self, n: usize) -> *const u8 {
        // `check::module` saw that every entry lies within the text.
        let start = self.func_range(n).start;
        let text = self.inner.header.range(Section::Text).start as usize;
        self.inner.map.as_ptr().wrapping_add(text + start as usize).cast_const()
    }

    fn func_range(&self, n: usize) -> Range<u32> {
        let table = Words(self.section(Section::Funcs));
        let start = table.get(2 * n);
        start..start + table.get(2 * n + 1)
    }

    /// The trap behind a faulting instruction. Runs inside the signal handler: no allocation, no
    /// lock.
    pub(super) fn trap_at(&self, pc: usize) -> Option<TrapKind> {
        let offset = u32::try_from(pc.checked_sub(self.text().start)?).ok()?;
        let offsets = Words(self.section(Section::TrapOffsets));
        let n = offsets.last_not_above(offset).filter(|&n| offsets.get(n) == offset)?;
        TrapKind::from_code(*self.section(Section::TrapCodes).get(n)?)
    }

    /// The functions and wasm positions of an instruction, innermost first: several where bodies
    /// stand in place of calls, none for trampolines.
    pub(super) fn positions(&self, pc: usize) -> Vec<CodePosition> {
        let Some(outermost) = self.position(pc) else { return Vec::new() };
        let mut frames = Vec::new();
        let entries = Words(self.section(Section::Inlined));
        let count = entries.0.len() / InlinedPosition::SIZE;
        let (mut position, mut below) = (outermost.wasm_offset, count);
        while let Some(word) = position.filter(|word| word & INLINED != 0) {
            let n = (word & !INLINED) as usize;
            // Callers come first, so a damaged table cannot lead in a circle.
            if n >= below {
                position = None;
                break;
            }
            let func = FuncIndex::from_u32(entries.get(3 * n));
            if self.info().functions.is_valid(func) {
                frames.push(CodePosition { func, wasm_offset: Some(entries.get(3 * n + 1)) });
            }
            (position, below) = (Some(entries.get(3 * n + 2)), n);
        }
        frames.push(CodePosition { wasm_offset: position, ..outermost });
        frames
    }

    /// The function that an instruction's code belongs to, and the instruction's position.
    fn position(&self, pc: usize) -> Option<CodePosition> {
        let offset = u32::try_from(pc.checked_sub(self.text().start)?).ok()?;
        let func = self.info().func_index(self.function_at(offset)?);
        let addresses = Words(self.section(Section::AddressOffsets));
        let positions = Words(self.section(Section::AddressPositions));
        let wasm_offset = addresses
            .last_not_above(offset)
            .map(|n| positions.get(n))
            .filter(|&position| position != u32::MAX);
        Some(CodePosition { func, wasm_offset })
    }

    fn function_at(&self, offset: u32) -> Option<DefinedFuncIndex> {
        let count = self.info().defined_funcs();
        let holds = |&n: &usize| self.func_range(n).contains(&offset);
        // Functions usually lie in order; an image that places them otherwise is still right.
        let sorted = partition_point(count, |n| self.func_range(n).start <= offset);
        sorted
            .checked_sub(1)
            .filter(holds)
            .or_else(|| (0..count).find(holds))
            .map(DefinedFuncIndex::new)
    }

    /// What catches exceptions around a call that returns to an address.
    pub(super) fn catch_site(&self, return_address: usize) -> Option<CatchSite<'_>> {
        let text = self.text();
        let offset = u32::try_from(return_address.checked_sub(text.start)?).ok()?;
        let sites = Words(self.section(Section::CatchSites));
        let n = sites.last_not_above(offset).filter(|&n| sites.get(n) == offset)?;
        let frames = Words(self.section(Section::CatchFrames));
        let first = if n == 0 { 0 } else { frames.get(2 * n - 1) as usize };
        let clauses = first * CLAUSE_LEN..frames.get(2 * n + 1) as usize * CLAUSE_LEN;
        let clauses = self.section(Section::Catches).get(clauses)?;
        Some(CatchSite { frame: frames.get(2 * n), text, clauses })
    }

    /// The function's name from the module's name section.
    pub(super) fn function_name(&self, func: FuncIndex) -> Option<&str> {
        let ends = Words(self.section(Section::NameEnds));
        let n = func.index();
        let start = if n == 0 { 0 } else { ends.get(n - 1) };
        let bytes = self.section(Section::Names).get(start as usize..ends.get(n) as usize)?;
        std::str::from_utf8(bytes).ok().filter(|name| !name.is_empty())
    }
}

/// Bytes of a clause in the image.
const CLAUSE_LEN: usize = 12;

/// A call inside a `try_table`.
pub(super) struct CatchSite<'a> {
    /// The frame pointer less the stack pointer, in bytes.
    pub(super) frame: u32,
    text: Range<usize>,
    clauses: &'a [u8],
}

/// A clause of a `try_table` around a call.
pub(super) struct CatchClause {
    /// The tag of the module that it catches; `None` catches everything.
    pub(super) tag: Option<u32>,
    /// Where the frame keeps its context, from the stack pointer up. `None`: the throwing runtime
    /// call was given it.
    pub(super) context: Option<u32>,
    /// The address of its landing pad.
    pub(super) landing_pad: usize,
}

impl CatchSite<'_> {
    /// The clauses in the order in which they are tried.
    pub(super) fn clauses(&self) -> impl Iterator<Item = CatchClause> {
        self.clauses.chunks_exact(CLAUSE_LEN).filter_map(|clause| {
            let clause = Words(clause);
            let (tag, context) = (clause.get(0), clause.get(1));
            let landing_pad = self.text.start + clause.get(2) as usize;
            // Anything else is a damaged image.
            self.text.contains(&landing_pad).then_some(CatchClause {
                tag: (tag != ANY_TAG).then_some(tag),
                context: (context != OWN_CONTEXT).then_some(context),
                landing_pad,
            })
        })
    }
}

/// A view of a section that holds little-endian `u32`s.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn get(&self, n: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[4 * n..4 * n + 4]);
        u32::from_le_bytes(word)
    }

    /// In an ascending array, the index of the last element that is at most `value`.
    fn last_not_above(&self, value: u32) -> Option<usize> {
        partition_point(self.0.len() / 4, |n| self.get(n) <= value).checked_sub(1)
    }
}

/// The number of leading indices below `len` for which `holds` is true.
fn partition_point(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_searched_like_a_sorted_slice() {
        let values = [3u32, 5, 5, 9];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let words = Words(&bytes);
        for probe in 0..12 {
            let expected = values.partition_point(|&v| v <= probe).checked_sub(1);
            assert_eq!(words.last_not_above(probe), expected, "{probe}");
        }
    }

    #[test]
    fn short_and_foreign_files_are_refused() {
        let engine = Engine::new();
        for bytes in [&b""[..], b"\0asm\x01\0\0\0", &[0; 8192]] {
            let file = sys::anonymous_file(bytes).unwrap();
            let error = Module::from_file(&engine, &file).unwrap_err();
            assert!(matches!(error, LoadError::Image(_)), "{error}");
        }
    }
}
