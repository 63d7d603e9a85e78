//! A module's bytes to a code image: decoding, validation, code generation, layout.
//!
//! Pure: bytes in, bytes out, the same on every run whatever the number of threads, and no unsafe
//! code. No type of the code generator leaves this module. The code follows the treaty in
//! [`abi`](crate::abi).
//!
//! ```text
//! bytes ── module::decode ──▶ ModuleInfo, bodies
//!   data       active segments to memory images
//!   survey     validates a body, notes its size and calls         on every thread
//!   inline     which calls are replaced by the callee's body
//!   tables     what holds of a table for good
//!   translate  a body, and those that it takes in, to IR         ┐
//!   func       IR to machine code, traps, positions              ├ on every thread
//!   trampoline host to wasm and back, for each signature         ┘
//!   link       text with all calls resolved, tables in its order
//!   first      instead of all of that one function at a time, when it is wanted
//! ```

#![forbid(unsafe_code)]

mod analysis;
mod catch;
mod data;
mod error;
pub(crate) mod first;
mod func;
mod inline;
mod isa;
mod link;
mod names;
mod parallel;
mod placement;
mod position;
mod signature;
mod survey;
mod tables;
mod trampoline;
mod translate;
mod trap;

#[cfg(test)]
mod tests;

use std::thread;
use std::time::Instant;

use crate::config::Settings;
use crate::image::{ImageBuilder, Meta};
use crate::module::decode;
use analysis::Analysis;
pub use error::CompileError;
use func::{Compiler, Job};
use link::Linker;
use translate::Environment;

/// Compiles a module, binary or text, to a [code image](crate::image) for this machine.
///
/// Works on as many threads as the machine offers. Memory grows with the module: some ten times
/// its size.
///
/// # Errors
/// When the module is not accepted, with the offset of the fault in it; when this machine lacks
/// what the code needs; when the code generator fails.
pub fn compile(wasm: &[u8], settings: &Settings) -> Result<Vec<u8>, CompileError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let binary = decode::to_binary(wasm)?;
    compile_on(&binary, settings, threads).map_err(|error| match error {
        CompileError::Decode(error) => {
            decode::name_missing(error, &binary, settings.features).into()
        }
        other => other,
    })
}

fn compile_on(binary: &[u8], settings: &Settings, threads: usize) -> Result<Vec<u8>, CompileError> {
    let begin = Instant::now();
    let target = isa::target(settings)?;
    let decode::Decoded { mut info, bodies, data, names } =
        decode::decode(binary, settings.features)?;

    let mut image = ImageBuilder::new();
    data::lay_out(&mut info, &data, &mut image);
    names::store(&info, &names, &mut image);
    drop((data, names));

    let functions = bodies.len();
    let analysis = Analysis::new(&info, bodies, settings, threads)?;
    let env = Environment::new(&info, &analysis, settings, &target);
    let jobs = analysis
        .functions()
        .map(Job::Function)
        .chain(info.signatures.keys().map(Job::Entry))
        .chain(info.signatures.keys().map(Job::Exit));
    let mut linker = Linker::new(&*target.isa, functions, image);
    let worker = || {
        let mut compiler = Compiler::new(&env, &*target.isa);
        move |job| compiler.run(job)
    };
    parallel::run(jobs, threads, worker, |code| linker.append(&code))?;
    let image = linker.finish();
    info.uses_objects = env.uses_objects();

    let meta = Meta {
        target: target.isa.triple().to_string(),
        cpu_features: target.cpu_features,
        settings: *settings,
        module: info,
    };
    let blob = image.finish(&meta)?;
    tracing::debug!(
        functions,
        wasm_bytes = binary.len(),
        image_bytes = blob.len(),
        threads,
        milliseconds = begin.elapsed().as_millis() as u64,
        "module compiled"
    );
    Ok(blob)
}
