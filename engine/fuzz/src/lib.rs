//! Fuzz targets of the engine, as plain functions on bytes.
//!
//! The fuzzers (`fuzz_targets/`) and the replay of corpus and regressions (`tests/replay.rs`, the
//! program `replay`) run the same functions. A finding is a panic.
//!
//! * [`decode`]: any bytes to a module or an error;
//! * [`image`]: damaged code images to an error or a loaded image;
//! * [`execute`]: generated modules, the same in every configuration and in other engines;
//! * [`wasi`]: every function of preview 1 with senseless arguments.

pub mod corpus;
pub mod decode;
pub mod edit;
pub mod execute;
pub mod features;
pub mod image;
pub mod meter;
pub mod stats;
pub mod wasi;

/// The name of a target and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 4] = [
    ("decode", decode::run),
    ("image", image::run),
    ("execute", execute::run),
    ("wasi", wasi::run),
];

/// Runs an input of a target.
///
/// # Panics
/// When the input is a finding, or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let Some((name, run)) = TARGETS.iter().find(|(name, _)| *name == target) else {
        panic!("there is no target {target}; targets are decode, image, execute, wasi");
    };
    run(data);
    stats::executed(name);
}
