//! `Module`: a code image mapped for execution, and the questions asked of its tables.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cranelift_entity::EntityRef;

use super::check;
use super::engine::Engine;
use super::lazy::Lazy;
use super::registry::TypeId;
use super::sys::{self, Mapping};
use super::tables::{CatchSite, Tables, Words, partition_point};
use super::types::ExternType;
use crate::abi::layout::Layout;
use crate::abi::trap::TrapKind;
use crate::config::Settings;
use crate::image::{CodeImage, HEADER_SIZE, Header, ImageError, MAX_SIZE, Meta, PAGE, Section};
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
    #[error("a code image without its functions' code needs the compiler, and no other does")]
    Lazy,
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
    lazy: Option<Lazy>,
}

/// Code and where in it an address lies.
pub(super) struct CodeAt<'a> {
    /// The address, as the tables count.
    pub(super) offset: u32,
    /// The function, where the tables are one function's.
    pub(super) func: Option<DefinedFuncIndex>,
    pub(super) tables: Tables<'a>,
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
        Module::map(engine, file, None)
    }

    /// Maps a lazy image: its functions are asked for, when they are first called, of the compiler
    /// at the other end of a [socket](crate::abi::lazy).
    ///
    /// # Errors
    /// As [`Module::from_file`]; when the image is not a lazy one.
    pub fn from_lazy_file(
        engine: &Engine,
        file: &File,
        compiler: OwnedFd,
    ) -> Result<Module, LoadError> {
        let file = file.try_clone().map_err(LoadError::Read)?;
        Module::map(engine, file, Some(compiler))
    }

    /// Puts the bytes of a code image into an anonymous file and maps that.
    ///
    /// # Errors
    /// As [`Module::from_file`].
    pub fn from_bytes(engine: &Engine, image: &[u8]) -> Result<Module, LoadError> {
        CodeImage::new(image)?;
        let file = sys::anonymous_file(image).map_err(LoadError::Anonymous)?;
        Module::map(engine, file, None)
    }

    fn map(engine: &Engine, file: File, compiler: Option<OwnedFd>) -> Result<Module, LoadError> {
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
        if header.range(Section::LazyFuncs).is_empty() == compiler.is_some() {
            return Err(LoadError::Lazy);
        }
        let lazy = compiler.map(Lazy::new);
        let inner = Inner { engine, file, map, header, meta, layout, type_ids, lazy };
        Ok(Module { inner: Arc::new(inner) })
    }

    /// What the module imports, defines and exports.
    #[must_use]
    pub fn info(&self) -> &ModuleInfo {
        &self.inner.meta.module
    }

    /// All of the image's description.
    pub(crate) fn meta(&self) -> &Meta {
        &self.inner.meta
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

    /// The bytes of a section of the image.
    pub(crate) fn section(&self, section: Section) -> &[u8] {
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
        let code = self.code_at(pc)?;
        code.tables.trap_at(code.offset)
    }

    /// The functions and wasm positions of an instruction, innermost first: several where bodies
    /// stand in place of calls, none for trampolines.
    pub(super) fn positions(&self, pc: usize) -> Vec<CodePosition> {
        let mut all = Vec::new();
        self.each_position(pc, |position| all.push(position));
        all
    }

    /// The same one by one. Runs inside of signal handlers: no allocation, no lock.
    pub(super) fn each_position(&self, pc: usize, see: impl FnMut(CodePosition)) {
        let Some(code) = self.code_at(pc) else { return };
        let func = match code.func {
            Some(func) => Some(func),
            // A stub has no position: its function has not begun.
            None if self.inner.lazy.is_some() => None,
            None => self.function_at(code.offset),
        };
        let Some(func) = func else { return };
        let known = |func| self.info().functions.is_valid(func);
        code.tables.positions(code.offset, self.info().func_index(func), known, see);
    }

    /// The tables that an address in the text belongs to.
    fn code_at(&self, pc: usize) -> Option<CodeAt<'_>> {
        let offset = u32::try_from(pc.checked_sub(self.text().start)?).ok()?;
        if let Some(made) = self.inner.lazy.as_ref().and_then(|lazy| lazy.find(self, offset)) {
            return Some(made);
        }
        Some(CodeAt { offset, func: None, tables: self.tables() })
    }

    /// The tables of the image itself.
    fn tables(&self) -> Tables<'_> {
        Tables {
            trap_offsets: Words(self.section(Section::TrapOffsets)),
            trap_codes: self.section(Section::TrapCodes),
            address_offsets: Words(self.section(Section::AddressOffsets)),
            address_positions: Words(self.section(Section::AddressPositions)),
            inlined: Words(self.section(Section::Inlined)),
            catch_sites: Words(self.section(Section::CatchSites)),
            catch_frames: Words(self.section(Section::CatchFrames)),
            catches: self.section(Section::Catches),
        }
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
        // The address may be the end of the code.
        let code = self.code_at(return_address.checked_sub(1)?)?;
        let offset = code.offset + 1;
        code.tables.catch_site(offset, return_address - offset as usize)
    }

    /// What asks for functions, if the image is a lazy one.
    pub(super) fn lazy(&self) -> Option<&Lazy> {
        self.inner.lazy.as_ref()
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

#[cfg(test)]
mod tests {
    use super::*;

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
