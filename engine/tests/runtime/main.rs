//! The runtime with real compiled code: traps, host functions, linking, images, crashes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod crash;
mod exceptions;
mod exceptions_host;
mod exceptions_many;
mod gc;
mod gc_host;
mod gc_operators;
mod host;
mod host_types;
mod image;
mod inline;
mod link;
mod memory;
mod tail_calls;
mod threads;
mod traps;
mod types;
mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_engine::compile::compile;
use coracle_engine::runtime::{Engine, Module};

use world::{World, image_of, image_with, names, settings};

fn load(engine: &Engine, wasm: &[u8]) -> Module {
    Module::from_bytes(engine, &compile(wasm, &settings()).unwrap()).unwrap()
}

/// For tests that need the fixed address: it is given out once at a time in a process.
fn fixed_address() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
