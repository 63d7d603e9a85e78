//! The compiler's side of a lazy image: `cranelift-jit` places code in a file that this process maps
//! writable and the guest executable. The only file that names that crate.
//!
//! No page is executable here, and none is writable in the guest. `JITModule` copies a function's
//! bytes to the room that [`Room`] gives and resolves its calls, all of which go to stubs of the same
//! text; distances are the same wherever the text is mapped. See [`abi::lazy`](crate::abi::lazy).

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::CallConv;
use cranelift_jit::{BranchProtection, JITBuilder, JITMemoryKind, JITMemoryProvider, JITModule};
use cranelift_module::{
    FuncId, Linkage, Module as _, ModuleError, ModuleReloc, ModuleRelocTarget, ModuleResult,
};

use super::sys::Mapping;
use crate::abi::lazy::{ENTRIES, ENTRY_SIZE, Stub};
use crate::image::{Header, Pieces, Section};

/// Why a function's code cannot be placed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ArenaError {
    #[error("cannot make the code image: {0}")]
    File(#[from] io::Error),
    #[error("the code image is no lazy one")]
    Image,
    #[error("the code, or its tables, take more room than this first start has")]
    Full,
    #[error("cannot place code: {0}")]
    Place(#[source] Box<ModuleError>),
}

impl From<ModuleError> for ArenaError {
    fn from(error: ModuleError) -> ArenaError {
        match error {
            ModuleError::Allocation { .. } => ArenaError::Full,
            other => ArenaError::Place(Box::new(other)),
        }
    }
}

/// A function to be placed.
pub(crate) struct Piece<'a> {
    /// Its number among the defined functions.
    pub(crate) func: u32,
    pub(crate) code: &'a [u8],
    /// A power of two, in bytes.
    pub(crate) align: u32,
    /// Where distances to stubs go, and the numbers of their functions.
    pub(crate) calls: &'a [(u32, u32)],
    pub(crate) tables: &'a [u8],
}

/// A lazy image, mapped to be filled.
pub(crate) struct Arena {
    map: Arc<Mapping>,
    jit: JITModule,
    /// The stubs that code calls, as the JIT knows them.
    stubs: HashMap<u32, FuncId>,
    text: Range<usize>,
    funcs: Range<usize>,
    /// What is left for tables.
    tables: Range<usize>,
    tables_start: usize,
    placed: u32,
    functions: u32,
}

impl Arena {
    /// Writes an image's pieces to an empty file and maps it. Nobody else may write to the file.
    ///
    /// # Errors
    /// When the file cannot be written or mapped.
    pub(crate) fn new(
        file: BorrowedFd<'_>,
        image: &Pieces,
        functions: u32,
    ) -> Result<Arena, ArenaError> {
        rustix::fs::ftruncate(file, image.total).map_err(io::Error::from)?;
        let map = Arc::new(Mapping::file_writable(file, image.total as usize)?);
        for (start, bytes) in &image.pieces {
            write(&map, *start as usize, bytes).ok_or(ArenaError::Image)?;
        }
        let page = image.pieces.first().map(|(_, page)| &page[..]).unwrap_or_default();
        let header = Header::decode(page, image.total).map_err(|_| ArenaError::Image)?;
        let range = |section| {
            let range = header.range(section);
            range.start as usize..range.end as usize
        };
        let (text, funcs) = (range(Section::Text), range(Section::LazyFuncs));
        let tables = range(Section::LazyTables);
        if funcs.len() < ENTRIES + functions as usize * ENTRY_SIZE {
            return Err(ArenaError::Image);
        }
        let filled = image.pieces.iter().find(|(start, _)| *start as usize == text.start);
        let filled = filled.map_or(0, |(_, bytes)| bytes.len());
        let free = text.start + filled..text.end;
        let base = map.address() + text.start;
        let mut builder = JITBuilder::new(cranelift_module::default_libcall_names())?;
        builder.memory_provider(Box::new(Room { map: Arc::clone(&map), free }));
        builder.symbol_lookup_fn(Box::new(move |name| {
            let func = name.strip_prefix(STUB)?.parse().ok().filter(|func| *func < functions)?;
            Some(ptr::with_exposed_provenance(base + Stub::of(func).entry() as usize))
        }));
        let jit = JITModule::new(builder);
        let (stubs, tables_start) = (HashMap::new(), tables.start);
        Ok(Arena { map, jit, stubs, text, funcs, tables, tables_start, placed: 0, functions })
    }

    /// Places a function, so that whoever calls it from now on finds it. Only once for each.
    ///
    /// # Errors
    /// When there is no room left.
    pub(crate) fn place(&mut self, piece: &Piece<'_>) -> Result<(), ArenaError> {
        let entry = self.funcs.start + ENTRIES + self.placed as usize * ENTRY_SIZE;
        if piece.func >= self.functions || self.placed >= self.functions {
            return Err(ArenaError::Image);
        }
        let tables = self.tables.start;
        let behind = tables + piece.tables.len().next_multiple_of(4);
        if behind > self.tables.end {
            return Err(ArenaError::Full);
        }
        let start = self.define(piece)?;
        write(&self.map, tables, piece.tables).ok_or(ArenaError::Full)?;
        let words =
            [start, piece.code.len() as u32, piece.func, (tables - self.tables_start) as u32];
        for (n, word) in words.iter().enumerate() {
            write(&self.map, entry + 4 * n, &word.to_le_bytes()).ok_or(ArenaError::Image)?;
        }
        self.tables.start = behind;
        self.placed += 1;
        self.publish(piece.func, start);
        Ok(())
    }

    /// Copies the code and resolves its calls; gives its offset in the text.
    fn define(&mut self, piece: &Piece<'_>) -> Result<u32, ArenaError> {
        let mut relocations = Vec::with_capacity(piece.calls.len());
        // Only names and addresses matter to the JIT.
        let signature = Signature::new(CallConv::Tail);
        for &(offset, target) in piece.calls {
            let stub = match self.stubs.get(&target) {
                Some(stub) => *stub,
                None => {
                    let name = format!("{STUB}{target}");
                    let stub = self.jit.declare_function(&name, Linkage::Import, &signature)?;
                    *self.stubs.entry(target).or_insert(stub)
                }
            };
            relocations.push(ModuleReloc {
                offset,
                kind: Reloc::X86CallPCRel4,
                name: ModuleRelocTarget::from(stub),
                addend: -4,
            });
        }
        let body = self.jit.declare_anonymous_function(&signature)?;
        let align = u64::from(piece.align);
        self.jit.define_function_bytes(body, align, piece.code, &relocations)?;
        self.jit.finalize_definitions()?;
        let address = self.jit.get_finalized_function(body).addr();
        Ok((address - self.map.address() - self.text.start) as u32)
    }

    /// Lets the other process see the entry and the code.
    fn publish(&self, func: u32, code: u32) {
        let stub = Stub::of(func);
        let operand = self.text.start + stub.operand() as usize;
        // SAFETY: `new` saw that there are entries for all functions, whose stubs are text that it
        // wrote, and `place` that this is one of them: both words lie within the mapping, which is
        // writable and lives as long as `self`; their offsets are multiples of four. From now on
        // they are only used atomically.
        let (count, operand) = unsafe {
            let start = self.map.as_ptr();
            (
                AtomicU32::from_ptr(start.add(self.funcs.start).cast()),
                AtomicI32::from_ptr(start.add(operand).cast()),
            )
        };
        count.store(self.placed, Ordering::Release);
        operand.store(stub.operand_to(code), Ordering::Release);
    }
}

/// What the JIT calls a stub, before the function's number.
const STUB: &str = "stub";

/// Writes bytes into a mapping, if they lie within.
fn write(map: &Mapping, at: usize, bytes: &[u8]) -> Option<()> {
    let end = at.checked_add(bytes.len())?;
    if end > map.len() {
        return None;
    }
    // SAFETY: the bytes lie within the mapping (just checked), which is writable, and no reference
    // to them exists: this file gives none out. The other process reads them after it was told.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), map.as_ptr().add(at), bytes.len()) };
    Some(())
}

/// Where the JIT may put code, from the beginning on.
struct Room {
    map: Arc<Mapping>,
    free: Range<usize>,
}

impl JITMemoryProvider for Room {
    fn allocate(&mut self, size: usize, align: u64, _: JITMemoryKind) -> io::Result<*mut u8> {
        let start = self.free.start.next_multiple_of(align as usize);
        let end = start.checked_add(size).filter(|end| *end <= self.free.end);
        self.free.start = end.ok_or(io::ErrorKind::StorageFull)?;
        Ok(self.map.as_ptr().wrapping_add(start))
    }

    // Dropping the arena unmaps it.
    unsafe fn free_memory(&mut self) {}

    /// Code is executed through the guest's mapping, never through this one.
    fn finalize(&mut self, _: BranchProtection) -> ModuleResult<()> {
        Ok(())
    }
}
