//! Tables of functions that guests import, and their way into a linker with what these share.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::ops::Deref;
use std::rc::Rc;

use super::core::signals;
use super::ctx::WasiCtx;
use super::preview1::errno::Errno;
use crate::runtime::{CallError, Caller, Func, Linker, Val, ValType};

/// A function that guests may import; its result is a number that says what went wrong, 0 nothing.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name that it is imported by.
    pub(super) name: &'static str,
    pub(super) params: &'static [ValType],
    /// Defines it under the given name.
    pub(super) define: fn(&mut Linker, &Rc<Host>, Cow<'static, str>),
}

/// What the functions of one linker share: the guest's state, and its handler of signals.
#[derive(Debug)]
pub struct Host {
    ctx: WasiCtx,
    handler: OnceCell<Func>,
}

impl From<WasiCtx> for Rc<Host> {
    fn from(ctx: WasiCtx) -> Rc<Host> {
        Rc::new(Host { ctx, handler: OnceCell::new() })
    }
}

impl Deref for Host {
    type Target = WasiCtx;

    fn deref(&self) -> &WasiCtx {
        &self.ctx
    }
}

impl Host {
    /// From now on the guest gets signals: `handler`, of the store that the linker is used with, takes
    /// their numbers.
    pub fn handle_signals(&self, handler: Func) {
        // An instance that comes later has no say.
        let _ = self.handler.set(handler);
        signals::handle();
    }
}

thread_local! {
    /// The function that this thread's guest called last, and the number that it got back. One word,
    /// without a destructor and initialised by a constant: writing it costs a store, and a handler of a
    /// signal may read it.
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// Notes a call that has ended.
#[inline]
pub(super) fn note(function: u32, result: u32) {
    LAST.set(u64::from(function) << 32 | u64::from(result));
}

/// The word of the last call that ended on this thread. Safe in a signal handler.
pub(super) fn last() -> u64 {
    LAST.get()
}

/// A number for a function's name: FNV-1a of 32 bits, never 0. A test sees that names of functions have
/// different ones.
pub(super) const fn number(name: &str) -> u32 {
    let (bytes, mut hash, mut n) = (name.as_bytes(), 0x811c_9dc5_u32, 0);
    while n < bytes.len() {
        hash = (hash ^ bytes[n] as u32).wrapping_mul(0x0100_0193);
        n += 1;
    }
    if hash == 0 { 1 } else { hash }
}

/// The number that a guest gets back: 0 is success.
pub(super) fn status<E: Into<u32>>(result: Result<(), E>) -> u32 {
    result.map_or_else(Into::into, |()| 0)
}

impl From<Errno> for u32 {
    fn from(errno: Errno) -> u32 {
        errno as u32
    }
}

/// A handler of signals did not return.
#[derive(Debug, thiserror::Error)]
#[error("the guest's handler of signals: {0}")]
pub(crate) struct HandlerFailed(#[source] pub(crate) CallError);

/// Calls the guest's handler for signals that came in the meantime.
#[inline]
pub(super) fn deliver(host: &Host, caller: &mut Caller<'_>) -> Result<(), HandlerFailed> {
    if signals::is_pending() { call_handler(host, caller) } else { Ok(()) }
}

#[cold]
fn call_handler(host: &Host, caller: &mut Caller<'_>) -> Result<(), HandlerFailed> {
    let Some(handler) = host.handler.get() else { return Ok(()) };
    while let Some(signal) = signals::take() {
        handler.call(caller, &[Val::I32(signal)], &mut Vec::new()).map_err(HandlerFailed)?;
    }
    Ok(())
}

/// The type of the WebAssembly value that a parameter is.
macro_rules! value_type {
    (u32) => {
        $crate::runtime::ValType::I32
    };
    (i64) => {
        $crate::runtime::ValType::I64
    };
    (u64) => {
        $crate::runtime::ValType::I64
    };
}

/// A table: `import_name = module(parameter: type, …);`, where the module has a function of that
/// name, which takes the guest's context and memory before its parameters.
macro_rules! functions {
    ($table:ident: $($name:ident = $family:ident($($arg:ident: $ty:tt),*);)*) => {
        /// The functions by the names that they are imported by.
        pub(in crate::wasi) const $table: &[$crate::wasi::link::Entry] = &[$(
            $crate::wasi::link::Entry {
                name: stringify!($name),
                params: &[$($crate::wasi::link::value_type!($ty)),*],
                define: |linker, host, name| {
                    let host = ::std::rc::Rc::clone(host);
                    linker.func_wrap(
                        $crate::wasi::preview1::MODULE,
                        name,
                        move |
                            mut caller: $crate::runtime::Caller<'_>,
                            $($arg: $ty),*
                        | -> Result<u32, $crate::wasi::link::HandlerFailed> {
                            const NUMBER: u32 = $crate::wasi::link::number(stringify!($name));
                            let memory =
                                &mut $crate::wasi::guest_mem::GuestMemory::of(&mut caller);
                            let result = $family::$name(&host, memory, $($arg),*);
                            let result = $crate::wasi::link::status(result);
                            $crate::wasi::link::note(NUMBER, result);
                            $crate::wasi::link::deliver(&host, &mut caller)?;
                            Ok(result)
                        },
                    );
                },
            }
        ),*];
    };
}

pub(super) use {functions, value_type};
