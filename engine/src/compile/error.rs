//! Why a module could not be compiled.

use crate::image::ImageError;
use crate::module::decode::DecodeError;

/// Why there is no code image.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CompileError {
    /// The module is not accepted: its author's to solve.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// This machine cannot run what the compiler makes.
    #[error("cannot generate code for this machine: {reason}")]
    Target { reason: String },
    /// An operator passed validation that the translator does not know.
    #[error("operator {operator} at byte offset {offset:#x} is not supported")]
    Operator { operator: String, offset: u64 },
    /// A function that is valid, but made to be expensive.
    #[error("function {func} is too complex: {what}, over the limit of {limit}")]
    TooComplex { func: String, what: &'static str, limit: usize },
    /// The code generator refused a function.
    #[error("cannot compile function {func}: {reason}")]
    Codegen { func: String, reason: String },
    /// Code would need to be patched when loaded, which images never are.
    #[error("cannot compile function {func}: code needs a relocation to {target}")]
    Relocation { func: String, target: String },
    /// The code is larger than an image may be.
    #[error("compiled code of {size} bytes is over the limit of {limit} bytes")]
    CodeTooLarge { size: u64, limit: u64 },
    /// The image cannot be written.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl From<wasmparser::Error> for CompileError {
    fn from(error: wasmparser::Error) -> CompileError {
        CompileError::Decode(error.into())
    }
}
