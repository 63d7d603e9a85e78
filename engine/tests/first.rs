//! The first-start tier: the tests of the runtime that bring their modules with them, on functions that
//! are compiled when they are first called, and what is the tier's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod lazy;

#[path = "runtime/exceptions.rs"]
mod exceptions;
#[path = "runtime/exceptions_host.rs"]
mod exceptions_host;
#[path = "runtime/exceptions_many.rs"]
mod exceptions_many;
#[path = "runtime/gc.rs"]
mod gc;
#[path = "runtime/gc_host.rs"]
mod gc_host;
#[path = "runtime/gc_operators.rs"]
mod gc_operators;
#[path = "runtime/host.rs"]
mod host;
#[path = "runtime/tail_calls.rs"]
mod tail_calls;
#[path = "runtime/traps.rs"]
mod traps;
#[path = "runtime/world.rs"]
mod world;

#[path = "first/tier.rs"]
mod tier;

use coracle_engine::config::Settings;
use coracle_engine::runtime::{Engine, Module};

use world::{World, image_of, names, settings};

fn first_settings() -> Settings {
    settings().first()
}

/// Nothing is compiled ahead, so that every function is asked for.
fn load(engine: &Engine, wasm: &[u8]) -> Module {
    lazy::load(engine, wasm, &first_settings(), 0).unwrap()
}
