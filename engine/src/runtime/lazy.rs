//! The guest's side of a lazy image: asks for functions that have no code yet, and finds the tables
//! of those that have. See [`abi::lazy`](crate::abi::lazy).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::builtins::{Ctx, shared_parts};
use super::code::{CodeAt, Module};
use super::tables::{Tables, Words, partition_point};
use super::trap::Pending;
use crate::abi::lazy::{self, ENTRIES, ENTRY_SIZE, READY, Stub, TABLES_HEAD};
use crate::image::Section;
use crate::module::index::DefinedFuncIndex;

/// Why a function has no code.
#[derive(Debug, thiserror::Error)]
enum Missing {
    #[error("a function cannot be compiled: {0}")]
    Refused(String),
    #[error(
        "the compiler has ended before all functions of this first start were compiled; start the \
         program again"
    )]
    Gone,
}

/// The way to the compiler of a lazy image.
#[derive(Debug)]
pub(super) struct Lazy {
    /// One question at a time.
    compiler: Mutex<OwnedFd>,
}

impl Lazy {
    pub(super) fn new(compiler: OwnedFd) -> Lazy {
        Lazy { compiler: Mutex::new(compiler) }
    }

    /// Gets a function its code.
    fn demand(&self, module: &Module, func: u32) -> Result<(), Missing> {
        let compiler = self.compiler.lock().unwrap_or_else(PoisonError::into_inner);
        if is_made(module, func) {
            return Ok(());
        }
        let mut answer = [0; lazy::MAX_ANSWER];
        match ask(&compiler, func, &mut answer) {
            Ok([READY]) => Ok(()),
            // The compiler ends when everything is made, perhaps with this question unread.
            _ if is_made(module, func) => Ok(()),
            Ok([]) | Err(_) => Err(Missing::Gone),
            Ok(reason) => Err(Missing::Refused(String::from_utf8_lossy(reason).into_owned())),
        }
    }

    /// The function whose code an offset in the text belongs to. Runs inside the signal handler: no
    /// allocation, no lock.
    pub(super) fn find<'a>(&self, module: &'a Module, offset: u32) -> Option<CodeAt<'a>> {
        let index = module.section(Section::LazyFuncs);
        let entries = Words(index.get(ENTRIES..)?);
        let count = (published(index) as usize).min(entries.0.len() / ENTRY_SIZE);
        let n = partition_point(count, |n| entries.get(4 * n) <= offset).checked_sub(1)?;
        let [start, len, func, at] = [0, 1, 2, 3].map(|word| entries.get(4 * n + word));
        let offset = offset.checked_sub(start).filter(|&offset| offset < len)?;
        let func = DefinedFuncIndex::from_u32(func);
        let known = func.as_u32() < module.info().defined_funcs() as u32;
        let tables = module.section(Section::LazyTables).get(at as usize..)?;
        Some(CodeAt { offset, func: known.then_some(func), tables: tables_of(tables)? })
    }
}

fn ask<'a>(compiler: &OwnedFd, func: u32, answer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    use rustix::io::{read, retry_on_intr};
    let flags = rustix::net::SendFlags::NOSIGNAL;
    retry_on_intr(|| rustix::net::send(compiler, &func.to_le_bytes(), flags))?;
    let len = retry_on_intr(|| read(compiler, &mut *answer))?;
    Ok(&answer[..len])
}

/// How many entries are complete.
fn published(index: &[u8]) -> u32 {
    debug_assert!(index.len() >= ENTRIES && index.as_ptr().addr().is_multiple_of(4));
    // SAFETY: `CodeImage::new` checked that a table of lazy functions has its first four bytes, and
    // sections lie on their alignment. The compiler writes this word by atomic stores alone.
    let count = unsafe { AtomicU32::from_ptr(index.as_ptr().cast_mut().cast()) };
    count.load(Ordering::Acquire)
}

/// Whether a function's stub leads to its code.
fn is_made(module: &Module, func: u32) -> bool {
    let at = Stub::of(func).operand() as usize;
    let text = module.section(Section::Text);
    let Some(operand) = text.get(at..at + 4) else { return false };
    debug_assert!(operand.as_ptr().addr().is_multiple_of(4));
    // SAFETY: four bytes of the mapped text (just checked), at a multiple of four since the text
    // begins on a page. The compiler writes them by atomic stores alone.
    let operand = unsafe { AtomicI32::from_ptr(operand.as_ptr().cast_mut().cast()) };
    operand.load(Ordering::Acquire) != lazy::UNMADE
}

/// The tables of one function.
fn tables_of(bytes: &[u8]) -> Option<Tables<'_>> {
    let head = Words(bytes.get(..TABLES_HEAD)?);
    let [traps, addresses, sites, clauses, len] = [0, 1, 2, 3, 4].map(|n| head.get(n) as usize);
    let mut rest = bytes.get(TABLES_HEAD..len)?;
    let mut next = |len: usize| {
        let (part, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(part)
    };
    Some(Tables {
        trap_offsets: Words(next(4 * traps)?),
        address_offsets: Words(next(4 * addresses)?),
        address_positions: Words(next(4 * addresses)?),
        catch_sites: Words(next(4 * sites)?),
        catch_frames: Words(next(8 * sites)?),
        catches: next(12 * clauses)?,
        trap_codes: next(traps)?,
        inlined: Words(&[]),
    })
}

/// A stub without code was called: gives where to go on.
///
/// # Safety
/// Only for `sys`, which passes on the context that compiled code gave and the stub's number.
pub(super) unsafe extern "C" fn on_ask(ctx: Ctx, func: u32) -> *const u8 {
    // SAFETY: compiled code passes the context of the function that it calls; while it waits nobody
    // else uses the store.
    let (instance, store) = unsafe { shared_parts(ctx) };
    let module = &instance.module;
    let outcome = match module.lazy() {
        Some(lazy) => lazy.demand(module, func),
        // Stubs are in lazy images alone.
        None => Err(Missing::Gone),
    };
    match outcome {
        Ok(()) => module.function(DefinedFuncIndex::from_u32(func)),
        Err(missing) => {
            store.pending = Some(Pending::Host(missing.into()));
            let text = module.section(Section::Text);
            text.as_ptr().wrapping_add(lazy::FAIL as usize)
        }
    }
}
