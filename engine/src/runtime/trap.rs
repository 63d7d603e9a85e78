//! Traps: from a faulting instruction to a readable report.
//!
//! The fault handler accepts a fault only if this thread is inside a call into a store, the faulting
//! instruction stands in the trap table of one of the store's modules and, for an access violation,
//! the address lies in the inaccessible part of one of the store's memories (or in page 0, for a
//! checked access through a null reference). Everything else keeps its usual consequence.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::ptr;

use cranelift_entity::EntityRef;

use super::exception::{Exception, RawException};
use super::func::CallError;
use super::host::HostError;
use super::store::StoreInner;
use super::sys::{self, Fault};
use super::vmcontext::Activation;
pub use crate::abi::trap::TrapKind;

/// Most frames of a backtrace: the innermost ones.
pub const MAX_FRAMES: usize = 64;
/// Most characters of a function's name that a report prints.
const MAX_NAME: usize = 256;

/// Why guest code stopped, and where: core specification, "Results" of execution.
///
/// It ends a call as [`CallError::Trap`], inside of instantiation as
/// [`InstantiateError::Failed`](super::InstantiateError::Failed). What the guest wrote before stays;
/// the instance can be called again. Printed, it is a line for the reason and one for each frame.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings};
/// use coracle_engine::runtime::{CallError, Engine, Linker, Module, Store, TrapKind};
/// let wat = r#"(module (memory 1)
///     (func $load (param i32) (result i32) (i32.load (local.get 0)))
///     (func (export "run") (result i32) (call $load (i32.const -1))))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let mut store = Store::new(&engine)?;
/// let instance = Linker::new(&engine).instantiate(&mut store, &module)?;
/// let run = instance.func(&store, "run").ok_or("no run")?;
/// let Err(CallError::Trap(trap)) = run.invoke(&mut store, &[]) else { panic!("no trap") };
/// assert_eq!(trap.kind(), TrapKind::MemoryOutOfBounds);
/// assert_eq!(trap.backtrace()[0].name.as_deref(), Some("load"));
/// assert!(trap.to_string().starts_with("wasm trap: out of bounds memory access\n  0: 0x"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    kind: TrapKind,
    backtrace: Backtrace,
}

/// The frames of guest code at some moment, innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backtrace {
    pub(super) frames: Vec<Frame>,
    pub(super) truncated: bool,
}

/// A frame of a backtrace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function's index in its module.
    pub func_index: u32,
    /// Its name from the module's name section.
    pub name: Option<String>,
    /// Byte offset of the instruction in the wasm module, if known: for the innermost frame the one
    /// that trapped or threw, for the others the call.
    pub wasm_offset: Option<u32>,
}

impl Trap {
    /// A trap outside of any function.
    pub(super) fn without_frames(kind: TrapKind) -> Trap {
        Trap { kind, backtrace: Backtrace::default() }
    }

    /// Why.
    #[must_use]
    pub fn kind(&self) -> TrapKind {
        self.kind
    }

    /// Where: the innermost function first, at most [`MAX_FRAMES`].
    #[must_use]
    pub fn backtrace(&self) -> &[Frame] {
        self.backtrace.frames()
    }
}

impl Backtrace {
    pub(super) fn frames(&self) -> &[Frame] {
        &self.frames
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wasm trap: {}", self.kind)?;
        self.backtrace.fmt(f)
    }
}

/// A line for each frame, each after a line break.
impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, frame) in self.frames.iter().enumerate() {
            write!(f, "\n{n:>3}: {frame}")?;
        }
        if self.truncated {
            f.write_str("\n     … more frames")?;
        }
        Ok(())
    }
}

impl Error for Trap {}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wasm_offset {
            Some(offset) => write!(f, "{offset:#x}  ")?,
            None => f.write_str("?  ")?,
        }
        match &self.name {
            // Names come from the guest: nothing in them may reach a terminal as a command.
            Some(name) => {
                let plain = format!("{:#}", rustc_demangle::demangle(name));
                plain.chars().take(MAX_NAME).try_for_each(|c| match c.is_control() {
                    true => write!(f, "{}", c.escape_unicode()),
                    false => write!(f, "{c}"),
                })
            }
            None => write!(f, "<function {}>", self.func_index),
        }
    }
}

/// Why a runtime call or host function failed, until compiled code has been left.
#[derive(Debug)]
pub(super) enum Pending {
    Trap(TrapKind),
    Host(HostError),
    /// Compiled code threw it, and no frame up to the innermost entry catches it.
    Thrown(RawException),
    /// The host raises it.
    Raised(Exception),
}

/// What the fault handler writes down: numbers only.
#[derive(Debug)]
pub(super) struct RawTrap {
    kind: Option<TrapKind>,
    pcs: [usize; MAX_FRAMES],
    len: usize,
    truncated: bool,
}

impl Default for RawTrap {
    fn default() -> RawTrap {
        RawTrap { kind: None, pcs: [0; MAX_FRAMES], len: 0, truncated: false }
    }
}

impl RawTrap {
    fn push(&mut self, pc: usize) -> bool {
        match self.pcs.get_mut(self.len) {
            Some(slot) => {
                *slot = pc;
                self.len += 1;
            }
            None => self.truncated = true,
        }
        !self.truncated
    }
}

thread_local! {
    /// The store whose code this thread runs, or null. Without a destructor and initialised by a
    /// constant, so that reading it in a signal handler does nothing else.
    static CURRENT: Cell<*mut StoreInner> = const { Cell::new(ptr::null_mut()) };
}

/// Says whose code runs on this thread from now on, and returns whose did.
pub(super) fn set_current(store: *mut StoreInner) -> *mut StoreInner {
    CURRENT.replace(store)
}

/// The store whose code this thread runs, or null. Reading it is safe in a signal handler.
pub(super) fn current() -> *const StoreInner {
    CURRENT.get()
}

/// Makes faults of compiled code traps, once for the process.
pub(super) fn install() -> io::Result<()> {
    sys::install_fault_handlers(on_fault)
}

fn on_fault(fault: &mut Fault<'_>) -> bool {
    let store = CURRENT.get();
    if store.is_null() {
        return false;
    }
    let pc = fault.pc();
    // SAFETY: `call` keeps the store alive while CURRENT points to it. The list of codes may be
    // read at any moment of its thread.
    let codes = unsafe { &(*store).codes };
    let Some(kind) = codes.find(pc).and_then(|module| module.trap_at(pc)) else {
        return false;
    };
    // SAFETY: the interrupted instruction is compiled code, so no Rust code of this thread is in
    // the middle of using the store, and no other thread may use it at all.
    let store = unsafe { &mut *store };
    if fault.address.is_some_and(|address| !is_trapping_access(store, kind, address)) {
        return false;
    }
    // SAFETY: compiled code was interrupted in a function below the innermost entry trampoline.
    unsafe { capture(store, Some(kind), pc, fault.frame_pointer()) };
    let activation = &store.record.activation;
    fault.resume_at(activation.entry_handler, activation.entry_sp, activation.entry_fp);
    true
}

/// Addresses of page 0, which is never mapped: what a checked access through null hits.
const NULL_PAGE: std::ops::Range<usize> = 0..4096;

fn is_trapping_access(store: &StoreInner, kind: TrapKind, address: usize) -> bool {
    match kind {
        TrapKind::MemoryOutOfBounds => store.guards(address),
        TrapKind::NullStruct | TrapKind::NullArray => store.gc.null_zone().contains(&address),
        TrapKind::NullReference
        | TrapKind::UninitializedElement
        | TrapKind::IndirectCallTypeMismatch => NULL_PAGE.contains(&address),
        _ => false,
    }
}

/// Writes down the addresses of all frames of compiled code, innermost first, through nested
/// activations. `pc` is the instruction that trapped or, without a trap, the address to which the
/// innermost call returns.
///
/// # Safety
/// `fp` must be the frame pointer of compiled code that runs below the store's innermost entry
/// trampoline: compiled code keeps frame pointers, so `[fp]` is its caller's frame pointer and
/// `[fp + 8]` its return address.
pub(super) unsafe fn capture(store: &mut StoreInner, kind: Option<TrapKind>, pc: usize, fp: usize) {
    let trap = &mut store.trap;
    *trap = RawTrap { kind, ..RawTrap::default() };
    trap.push(pc);
    let mut activation: &Activation = &store.record.activation;
    let mut fp = fp;
    loop {
        // SAFETY: every frame up to the entry trampoline's is compiled code with a frame pointer.
        if unsafe { !walk(trap, fp, activation.entry_fp) } {
            return;
        }
        // SAFETY: outer activations lie on the stack of `call`, below which all of this runs.
        match unsafe { activation.outer.as_ref() } {
            Some(outer) if outer.entry_fp != 0 => {
                activation = outer;
                fp = outer.last_exit_fp;
            }
            _ => return,
        }
    }
}

/// Writes down the return addresses from the frame at `fp` up to the entry trampoline's frame.
/// Returns whether there is room for more.
///
/// # Safety
/// As for [`capture`].
unsafe fn walk(trap: &mut RawTrap, mut fp: usize, entry_fp: usize) -> bool {
    // The stack grows down: a frame pointer that does not rise is none.
    while fp < entry_fp && fp.is_multiple_of(align_of::<usize>()) && fp != 0 {
        let frame = ptr::with_exposed_provenance::<usize>(fp);
        // SAFETY: the caller's promise; two words lie at every frame pointer.
        let (next, return_address) = unsafe { (frame.read(), frame.add(1).read()) };
        // The frame below the entry trampoline returns into the trampoline, which is no frame of
        // the guest.
        if next == entry_fp {
            return true;
        }
        if next <= fp || !trap.push(return_address) {
            return next > fp;
        }
        fp = next;
    }
    true
}

/// Turns what the fault handler or a throw left into an error.
pub(super) fn take(store: &mut StoreInner) -> CallError {
    let kind = store.trap.kind.take();
    let kind = match (kind, store.pending.take()) {
        (Some(TrapKind::Host), Some(Pending::Host(error))) => return host_error(error),
        (Some(TrapKind::Host), Some(Pending::Trap(kind))) => kind,
        (Some(kind), _) => kind,
        (None, Some(Pending::Thrown(raw))) => {
            let backtrace = symbolicate(store, false);
            return CallError::Exception(Exception::from_raw(store, raw, backtrace));
        }
        (None, Some(Pending::Raised(mut exception))) => {
            exception.or_backtrace(|| symbolicate(store, false));
            return CallError::Exception(exception);
        }
        // The entry trampoline says that it was resumed, by the fault handler or by a throw.
        (None, _) => unreachable!("a failed call left neither trap nor exception"),
    };
    CallError::Trap(Trap { kind, backtrace: symbolicate(store, true) })
}

/// What stopped a nested call stops the outer ones as itself.
pub(super) fn host_error(error: HostError) -> CallError {
    match error.downcast::<CallError>() {
        Ok(inner) => *inner,
        Err(error) => match error.downcast::<Exception>() {
            Ok(exception) => CallError::Exception(*exception),
            Err(error) => CallError::Host(error),
        },
    }
}

/// The frames that were written down; one on the stack may hold several, where a body stands in
/// place of a call. `trapped`: the innermost address is that of an instruction.
fn symbolicate(store: &StoreInner, trapped: bool) -> Backtrace {
    let pcs = &store.trap.pcs[..store.trap.len];
    let mut frames = Vec::new();
    for (n, &pc) in pcs.iter().enumerate() {
        // All others are return addresses, which may belong to the next function.
        let pc = if n == 0 && trapped { pc } else { pc - 1 };
        let Some(module) = store.codes.find(pc) else { continue };
        frames.extend(module.positions(pc).into_iter().map(|position| Frame {
            func_index: position.func.index() as u32,
            name: module.function_name(position.func).map(str::to_owned),
            wasm_offset: position.wasm_offset,
        }));
    }
    let truncated = store.trap.truncated || frames.len() > MAX_FRAMES;
    frames.truncate(MAX_FRAMES);
    Backtrace { frames, truncated }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_numbered_frames_and_plain_names() {
        let frame = |func_index, name: Option<&str>, wasm_offset| Frame {
            func_index,
            name: name.map(str::to_owned),
            wasm_offset,
        };
        let trap = Trap {
            kind: TrapKind::Unreachable,
            backtrace: Backtrace {
                frames: vec![
                    frame(3, Some("_ZN4core9panicking5panic17h0123456789abcdefE"), Some(0x1a2b)),
                    frame(1, Some("evil\x1b[2J"), None),
                    frame(7, None, Some(0x10)),
                ],
                truncated: true,
            },
        };
        let expected = "wasm trap: unreachable\n  0: 0x1a2b  core::panicking::panic\
                        \n  1: ?  evil\\u{1b}[2J\n  2: 0x10  <function 7>\
                        \n     … more frames";
        assert_eq!(trap.to_string(), expected);
    }

    #[test]
    fn a_walk_ends_at_the_entry_frame_and_at_anything_odd() {
        // Three frames on a made-up stack: [next fp, return address] each.
        let mut stack = [0usize; 8];
        let at = |n: usize, stack: &[usize; 8]| (&raw const stack[n]).expose_provenance();
        let entry = at(6, &stack);
        (stack[0], stack[1]) = (at(2, &stack), 11);
        (stack[2], stack[3]) = (at(4, &stack), 12);
        (stack[4], stack[5]) = (entry, 13);
        let mut trap = RawTrap::default();
        // SAFETY: all frames lie in `stack`.
        assert!(unsafe { walk(&mut trap, at(0, &stack), entry) });
        assert_eq!(trap.pcs[..trap.len], [11, 12]);
        stack[2] = at(0, &stack);
        let mut trap = RawTrap::default();
        // SAFETY: the second frame points backwards, which ends the walk.
        assert!(!unsafe { walk(&mut trap, at(0, &stack), entry) });
        assert_eq!(trap.pcs[..trap.len], [11]);
    }
}
