//! What a thread does at this moment, seen from a handler of a signal on it, and read by another process.
//!
//! The signal may come at any instruction: in compiled code, in a host function that waits or works, in
//! a runtime call, between any two of them. So the handler allocates nothing, takes no lock, follows no
//! pointer that could be stale, and reads no word but of the live part of this thread's stack: from the
//! interrupted stack pointer up to the frame of the entry trampoline. What it finds there counts as a
//! frame only if it is an address of compiled code. It changes nothing.
//!
//! The description is bytes, since who reads them is somebody else, and the guest may be hostile:
//! [`Sight::read`] takes nothing for granted.

use std::fmt;
use std::ptr;

use cranelift_entity::EntityRef;

use super::code::Module;
use super::store::{CodeList, StoreInner};
use super::sys::Interrupted;
use super::trap::{self, Backtrace, Frame, MAX_FRAMES};
use super::usage;
use super::vmcontext::Activation;

/// Most bytes of a description.
pub const MAX_SIGHT: usize = 16 << 10;
/// Most bytes of a function's name in it.
const MAX_NAME: usize = 512;
/// Most frames that are looked at to see whether a chain of them is whole, in all.
const MAX_STEPS: usize = 1 << 20;
/// An offset that is not known.
const UNKNOWN: u32 = u32::MAX;
/// What stands before a frame, and instead of one where there are more.
const FRAME: u8 = 1;
const MORE: u8 = 2;

/// What a thread was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// No guest runs on it.
    Outside,
    /// Compiled code.
    Guest,
    /// What compiled code called: a host function or a runtime call.
    Host,
}

impl Place {
    const ALL: [Place; 3] = [Place::Outside, Place::Guest, Place::Host];
}

/// What a thread did at one moment. Printed, it is a line for each frame, innermost first, each after a
/// line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Where it was.
    pub place: Place,
    /// Bytes of all linear memories of the process.
    pub memory_bytes: u64,
    /// Elements of all tables of the process.
    pub table_elements: u64,
    backtrace: Backtrace,
}

impl Interrupted<'_> {
    /// Describes what the thread does, in at most [`MAX_SIGHT`] bytes of `out`; gives how many were
    /// written. What has no room is left out.
    pub fn describe(&self, out: &mut [u8]) -> usize {
        let room = out.len().min(MAX_SIGHT);
        let mut writer = Writer { out: &mut out[..room], len: 0 };
        let store = trap::current();
        let place = match store.is_null() {
            true => Place::Outside,
            // SAFETY: `call` keeps the store alive while it is the current one. The list of codes may be
            // read at any moment of its thread.
            false => match unsafe { (*store).codes.find(self.pc) } {
                Some(_) => Place::Guest,
                None => Place::Host,
            },
        };
        let (memory, tables) = usage::totals();
        writer.put(&[&[place as u8], &memory.to_le_bytes(), &tables.to_le_bytes()]);
        if place != Place::Outside {
            let mut frames = 0;
            // SAFETY: as above.
            let codes = unsafe { &(*store).codes };
            let mut see = |return_address: usize| {
                let pc = return_address.wrapping_sub(1);
                let Some(module) = codes.find(pc) else { return true };
                write_frames(&mut writer, module, pc, &mut frames)
            };
            // SAFETY: the current store; this is a handler on its thread.
            unsafe { self.walk(store, codes, place, &mut see) };
        }
        writer.len
    }

    /// Shows the return addresses of all frames of compiled code, innermost first, until `see` says that
    /// it has enough; of the interrupted instruction the address of its second byte.
    ///
    /// # Safety
    /// `store` must be the current one of the interrupted thread.
    unsafe fn walk(
        &self,
        store: *const StoreInner,
        codes: &CodeList,
        place: Place,
        see: &mut dyn FnMut(usize) -> bool,
    ) {
        if self.in_handler {
            // The stack of signals is another one.
            return;
        }
        // SAFETY: the store is alive. Volatile, since the code that was interrupted may be about to write
        // it; a mixture of old and new values does no harm, since every word that is read through it lies
        // on the live stack.
        let mut activation = unsafe { (&raw const (*store).record.activation).read_volatile() };
        let stack = Stack { low: self.sp, codes };
        let mut fp = match place {
            Place::Guest => {
                let unframed = self.return_without_frame();
                let unframed = unframed.and_then(|at| stack.word(at, activation.entry_fp));
                if !see(self.pc + 1) || unframed.is_some_and(|address| !see(address)) {
                    return;
                }
                self.fp
            }
            _ => {
                let Some((fp, innermost)) = stack.innermost(&activation) else { return };
                if innermost.is_some_and(|address| !see(address)) {
                    return;
                }
                fp
            }
        };
        loop {
            while let Some((next, return_address)) = stack.frame(fp, activation.entry_fp) {
                // The frame below the entry trampoline returns into it, which is no frame of the guest.
                if next == activation.entry_fp {
                    break;
                }
                if !see(return_address) {
                    return;
                }
                fp = next;
            }
            // SAFETY: outer activations lie on the stack of `call`, which has not returned.
            match unsafe { activation.outer.as_ref() } {
                Some(outer) if outer.entry_fp != 0 => {
                    activation = *outer;
                    fp = outer.last_exit_fp;
                }
                _ => return,
            }
        }
    }
}

/// The live part of the interrupted thread's stack.
struct Stack<'a> {
    /// Its stack pointer.
    low: usize,
    codes: &'a CodeList,
}

impl Stack<'_> {
    /// The word at an address, if it lies between the stack pointer and an entry trampoline's frame.
    fn word(&self, at: usize, entry_fp: usize) -> Option<usize> {
        let inside = at >= self.low && at.checked_add(size_of::<usize>())? <= entry_fp;
        if !inside || !at.is_multiple_of(align_of::<usize>()) {
            return None;
        }
        // SAFETY: between the interrupted stack pointer and the frame of an entry trampoline above it all
        // is the thread's own stack, and mapped. Volatile, since the words are other functions'.
        Some(unsafe { ptr::with_exposed_provenance::<usize>(at).read_volatile() })
    }

    /// The caller's frame pointer and the return address of a frame. Frame pointers rise.
    fn frame(&self, fp: usize, entry_fp: usize) -> Option<(usize, usize)> {
        let next = self.word(fp, entry_fp)?;
        let return_address = self.word(fp + size_of::<usize>(), entry_fp)?;
        (next > fp && next <= entry_fp).then_some((next, return_address))
    }

    /// Whether frames of compiled code lead from here to the entry trampoline.
    fn is_whole(&self, mut fp: usize, entry_fp: usize, steps: &mut usize) -> bool {
        while let Some((next, return_address)) = self.frame(fp, entry_fp) {
            *steps += 1;
            if *steps > MAX_STEPS || self.codes.find(return_address.wrapping_sub(1)).is_none() {
                return false;
            }
            if next == entry_fp {
                return true;
            }
            fp = next;
        }
        false
    }

    /// The innermost frame of compiled code that waits for the host, and what is called from it.
    ///
    /// A host function is called through a trampoline that leaves its frame pointer. A runtime call
    /// leaves nothing: the first frame from which others lead up is it, and the first address of
    /// compiled code below it is where the call returns to.
    fn innermost(&self, activation: &Activation) -> Option<(usize, Option<usize>)> {
        let (exit, entry_fp) = (activation.last_exit_fp, activation.entry_fp);
        let mut steps = 0;
        if exit != 0 && self.is_whole(exit, entry_fp, &mut steps) {
            return Some((exit, None));
        }
        let mut innermost = None;
        let mut at = self.low.next_multiple_of(align_of::<usize>());
        while let Some(word) = self.word(at, entry_fp) {
            if self.is_whole(at, entry_fp, &mut steps) {
                return Some((at, innermost));
            }
            if innermost.is_none() && self.codes.find(word.wrapping_sub(1)).is_some() {
                innermost = Some(word);
            }
            at += size_of::<usize>();
        }
        None
    }
}

/// Writes the frames of one address; whether there is room for more.
fn write_frames(writer: &mut Writer<'_>, module: &Module, pc: usize, frames: &mut usize) -> bool {
    let mut more = true;
    module.each_position(pc, |position| {
        if !more {
            return;
        }
        let name = module.function_name(position.func).unwrap_or_default().as_bytes();
        let name = &name[..name.len().min(MAX_NAME)];
        let func = (position.func.index() as u32).to_le_bytes();
        let offset = position.wasm_offset.unwrap_or(UNKNOWN).to_le_bytes();
        let length = (name.len() as u16).to_le_bytes();
        more = *frames < MAX_FRAMES && writer.put(&[&[FRAME], &func, &offset, &length, name]);
        if more {
            *frames += 1;
        } else {
            writer.end(MORE);
        }
    });
    more
}

/// Fills a buffer, of which the last byte is kept back for the end.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    /// Writes all parts or nothing.
    fn put(&mut self, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.len + length >= self.out.len() {
            return false;
        }
        for part in parts {
            self.out[self.len..self.len + part.len()].copy_from_slice(part);
            self.len += part.len();
        }
        true
    }

    fn end(&mut self, byte: u8) {
        if let Some(last) = self.out.get_mut(self.len) {
            *last = byte;
            self.len += 1;
        }
    }
}

impl Sight {
    /// Reads a description, from whomever it comes; `None` if it is none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Sight> {
        let mut reader = Reader(bytes);
        let place = *Place::ALL.get(usize::from(reader.take::<1>()?[0]))?;
        let memory_bytes = u64::from_le_bytes(reader.take()?);
        let table_elements = u64::from_le_bytes(reader.take()?);
        let (mut frames, mut truncated) = (Vec::new(), false);
        while let Some([tag]) = reader.take() {
            match tag {
                FRAME if frames.len() < MAX_FRAMES => frames.push(reader.frame()?),
                MORE if reader.0.is_empty() => truncated = true,
                _ => return None,
            }
        }
        let backtrace = Backtrace { frames, truncated };
        Some(Sight { place, memory_bytes, table_elements, backtrace })
    }

    /// The frames, innermost first, at most [`MAX_FRAMES`].
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        self.backtrace.frames()
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backtrace.fmt(f)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn frame(&mut self) -> Option<Frame> {
        let func_index = u32::from_le_bytes(self.take()?);
        let offset = u32::from_le_bytes(self.take()?);
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (name, rest) = self.0.split_at_checked(length).filter(|_| length <= MAX_NAME)?;
        self.0 = rest;
        let name = (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned());
        Some(Frame { func_index, name, wasm_offset: Some(offset).filter(|&at| at != UNKNOWN) })
    }
}
