//! WASI: one host core that knows no ABI, and thin ABI layers over it.

pub mod core;
pub mod ctx;
pub mod guest_mem;
pub mod preview1;

pub use core::listen::{ListenAddress, NoAddress};
pub use core::stop::Stop;
pub use ctx::{GrantError, WasiCtx, WasiCtxBuilder};
