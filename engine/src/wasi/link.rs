//! Tables of functions that guests import, and their way into a linker.

use std::borrow::Cow;
use std::rc::Rc;

use super::core::signals;
use super::ctx::WasiCtx;
use super::preview1::errno::Errno;
use crate::runtime::{CallError, Caller, Linker, Val, ValType};

/// A function that guests may import; its result is a number that says what went wrong, 0 nothing.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name that it is imported by.
    pub(super) name: &'static str,
    pub(super) params: &'static [ValType],
    /// Defines it under the given name.
    pub(super) define: fn(&mut Linker, &Rc<WasiCtx>, Cow<'static, str>),
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
pub(super) fn deliver(ctx: &WasiCtx, caller: &mut Caller<'_>) -> Result<(), HandlerFailed> {
    if signals::is_pending() { call_handler(ctx, caller) } else { Ok(()) }
}

#[cold]
fn call_handler(ctx: &WasiCtx, caller: &mut Caller<'_>) -> Result<(), HandlerFailed> {
    let Some(handler) = ctx.signal_handler() else { return Ok(()) };
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
                define: |linker, ctx, name| {
                    let ctx = ::std::rc::Rc::clone(ctx);
                    linker.func_wrap(
                        $crate::wasi::preview1::MODULE,
                        name,
                        move |
                            mut caller: $crate::runtime::Caller<'_>,
                            $($arg: $ty),*
                        | -> Result<u32, $crate::wasi::link::HandlerFailed> {
                            let memory =
                                &mut $crate::wasi::guest_mem::GuestMemory::of(&mut caller);
                            let result = $family::$name(&ctx, memory, $($arg),*);
                            $crate::wasi::link::deliver(&ctx, &mut caller)?;
                            Ok($crate::wasi::link::status(result))
                        },
                    );
                },
            }
        ),*];
    };
}

pub(super) use {functions, value_type};
