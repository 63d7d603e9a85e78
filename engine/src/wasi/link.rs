//! Tables of functions that guests import, and their way into a linker.

use std::borrow::Cow;
use std::rc::Rc;

use super::ctx::WasiCtx;
use super::preview1::errno::Errno;
use crate::runtime::{Linker, ValType};

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
                        move |mut caller: $crate::runtime::Caller<'_>, $($arg: $ty),*| -> u32 {
                            let memory =
                                &mut $crate::wasi::guest_mem::GuestMemory::of(&mut caller);
                            $crate::wasi::link::status($family::$name(&ctx, memory, $($arg),*))
                        },
                    );
                },
            }
        ),*];
    };
}

pub(super) use {functions, value_type};
