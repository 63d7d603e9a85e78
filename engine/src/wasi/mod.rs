//! WASI: one host core that knows no ABI, and thin ABI layers over it.

pub mod core;
pub mod ctx;
pub mod guest_mem;
mod last;
mod link;
pub mod preview1;
pub mod sockets;

use std::rc::Rc;

use crate::runtime::{Linker, Module};

pub use last::LastCall;
pub(crate) use link::HandlerFailed;
pub use link::Host;

pub use core::listen::{ListenAddress, NoAddress};
pub use core::names::Files as NameFiles;
pub use core::policy::{BadPolicy, NetworkPolicy};
pub use core::signals;
pub use core::stop::Stop;
pub use ctx::{GrantError, WasiCtx, WasiCtxBuilder};

/// Defines all that a module may import of WASI: the functions of preview 1, and those of the socket
/// dialect that it is written for. The guest's state lives as long as the definitions.
///
/// # Errors
/// When the module mixes dialects, or imports a known function with a type that no dialect gives it.
pub fn add_to_linker(
    linker: &mut Linker,
    module: &Module,
    ctx: impl Into<Rc<Host>>,
) -> Result<(), sockets::Refusal> {
    let ctx = ctx.into();
    preview1::link::add_shared(linker, &ctx);
    sockets::add_to_linker(linker, module, &ctx)
}
