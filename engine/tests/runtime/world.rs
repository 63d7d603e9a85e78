//! What a test needs before its module. The test's executable says how modules are loaded.

use coracle_engine::compile::compile;
use coracle_engine::config::{Features, Settings};
use coracle_engine::runtime::{
    CallError, Engine, Exception, Instance, Linker, Module, Store, StoreConfig, Trap, Val,
};

/// An engine, a store, a linker: what a test needs before its module.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) linker: Linker,
}

impl World {
    pub(crate) fn new() -> World {
        World::with_config(StoreConfig::default())
    }

    pub(crate) fn with_config(config: StoreConfig) -> World {
        let engine = Engine::new();
        let store = Store::with_config(&engine, config).unwrap();
        let linker = Linker::new(&engine);
        World { engine, store, linker }
    }

    /// A world whose store collects garbage before every allocation.
    pub(crate) fn stressed() -> World {
        World::with_config(crate::gc::stress())
    }

    pub(crate) fn module(&self, wat: &str) -> Module {
        crate::load(&self.engine, &wat::parse_str(wat).unwrap())
    }

    pub(crate) fn instance(&mut self, wat: &str) -> Instance {
        let module = self.module(wat);
        self.linker.instantiate(&mut self.store, &module).unwrap()
    }

    pub(crate) fn call(
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
    pub(crate) fn call_i32(&mut self, instance: Instance, name: &str, args: &[Val]) -> i32 {
        match self.call(instance, name, args).unwrap()[..] {
            [Val::I32(value)] => value,
            ref other => panic!("{other:?}"),
        }
    }

    /// Calls a function that must trap.
    pub(crate) fn trap(&mut self, instance: Instance, name: &str, args: &[Val]) -> Trap {
        match self.call(instance, name, args) {
            Err(CallError::Trap(trap)) => trap,
            other => panic!("no trap: {other:?}"),
        }
    }

    /// Calls a function that must throw.
    pub(crate) fn exception(&mut self, instance: Instance, name: &str, args: &[Val]) -> Exception {
        match self.call(instance, name, args) {
            Err(CallError::Exception(exception)) => exception,
            other => panic!("no exception: {other:?}"),
        }
    }
}

pub(crate) fn settings() -> Settings {
    Settings { verifier: true, ..Settings::default() }
}

pub(crate) fn image_of(wat: &str) -> Vec<u8> {
    image_with(wat, |_| ())
}

/// Compiles with other features than the default ones.
pub(crate) fn image_with(wat: &str, change: impl FnOnce(&mut Features)) -> Vec<u8> {
    let mut settings = settings();
    change(&mut settings.features);
    compile(&wat::parse_str(wat).unwrap(), &settings).unwrap()
}

/// The names in a backtrace, innermost first.
pub(crate) fn names(trap: &Trap) -> Vec<&str> {
    trap.backtrace().iter().map(|frame| frame.name.as_deref().unwrap_or("?")).collect()
}
