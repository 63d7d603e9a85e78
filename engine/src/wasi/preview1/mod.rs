//! WASI preview 1, module `wasi_snapshot_preview1`: a thin layer that translates numbers, rights
//! and structures, and leaves every act to the [host core](super::core).
//!
//! Each function takes the guest's context, its memory and the raw parameters, and returns an
//! errno; all are tested without a runtime.

pub mod args;
pub mod clock;
pub mod descriptor;
pub mod environ;
pub mod errno;
pub mod fd;
pub mod file;
pub mod link;
pub mod path;
pub mod poll;
pub mod proc;
pub mod random;
pub mod rights;
pub mod sock;
mod types;

pub use link::{MODULE, add_to_linker};
pub use proc::ProcExit;

#[cfg(test)]
mod tests;
