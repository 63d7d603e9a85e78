//! Coracle's WebAssembly engine: bytes → [`module`] → [`compile`] → [`image`] → [`runtime`] → [`wasi`].
//!
//! Each floor is ignorant of the ones above it. [`abi`] is the treaty between compiled code and
//! the runtime; `compile` and `runtime` never import each other. A process that only runs code
//! never touches `compile`, and the linker leaves the code generator out of its executable.

pub mod abi;
pub mod command;
pub mod compile;
pub mod config;
pub mod image;
pub mod module;
pub mod runtime;
pub mod wasi;
