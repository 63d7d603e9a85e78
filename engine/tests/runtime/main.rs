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

use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_engine::compile::compile;
use coracle_engine::config::{Features, Settings};
use coracle_engine::runtime::{
    CallError, Engine, Exception, Instance, Linker, Module, Store, StoreConfig, Trap, Val,
};

/// An engine, a store, a linker: what a test needs before its module.
struct World {
    engine: Engine,
    store: Store,
    linker: Linker,
}

impl World {
    fn new() -> World {
        World::with_config(StoreConfig::default())
    }

    fn with_config(config: StoreConfig) -> World {
        let engine = Engine::new();
        let store = Store::with_config(&engine, config).unwrap();
        let linker = Linker::new(&engine);
        World { engine, store, linker }
    }

    /// A world whose store collects garbage before every allocation.
    fn stressed() -> World {
        World::with_config(gc::stress())
    }

    fn module(&self, wat: &str) -> Module {
        Module::from_bytes(&self.engine, &image_of(wat)).unwrap()
    }

    fn instance(&mut self, wat: &str) -> Instance {
        let module = self.module(wat);
        self.linker.instantiate(&mut self.store, &module).unwrap()
    }

    fn call(
        &mut self,
        instance: Instance,
        name: &str,
        args: &[Val],
    ) -> Result<Vec<Val>, CallError> {
        let func = instance.func(&self.store, name).unwrap();
        let mut results = Vec::new();
        func.call(&mut self.store, args, &mut results).map(|()| results)
    }

    /// Calls a function that must return one i32.
    fn call_i32(&mut self, instance: Instance, name: &str, args: &[Val]) -> i32 {
        match self.call(instance, name, args).unwrap()[..] {
            [Val::I32(value)] => value,
            ref other => panic!("{other:?}"),
        }
    }

    /// Calls a function that must trap.
    fn trap(&mut self, instance: Instance, name: &str, args: &[Val]) -> Trap {
        match self.call(instance, name, args) {
            Err(CallError::Trap(trap)) => trap,
            other => panic!("no trap: {other:?}"),
        }
    }

    /// Calls a function that must throw.
    fn exception(&mut self, instance: Instance, name: &str, args: &[Val]) -> Exception {
        match self.call(instance, name, args) {
            Err(CallError::Exception(exception)) => exception,
            other => panic!("no exception: {other:?}"),
        }
    }
}

/// For tests that need the fixed address: it is given out once at a time in a process.
fn fixed_address() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings() -> Settings {
    Settings { verifier: true, ..Settings::default() }
}

fn image_of(wat: &str) -> Vec<u8> {
    image_with(wat, |_| ())
}

/// Compiles with other features than the default ones.
fn image_with(wat: &str, change: impl FnOnce(&mut Features)) -> Vec<u8> {
    let mut settings = settings();
    change(&mut settings.features);
    compile(&wat::parse_str(wat).unwrap(), &settings).unwrap()
}

/// The names in a backtrace, innermost first.
fn names(trap: &Trap) -> Vec<&str> {
    trap.backtrace().iter().map(|frame| frame.name.as_deref().unwrap_or("?")).collect()
}
