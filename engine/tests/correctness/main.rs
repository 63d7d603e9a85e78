//! Compiled code against models that share nothing with the compiler: addresses, values, stacks.
//!
//! The official suite asks whether every operator works. This asks what goes wrong in code
//! generators that pass it: addresses at the ends of ranges, loads that instructions take along,
//! constants that are computed while compiling, bits of NaNs on their way, stacks that end, branches that skip others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod addresses;
mod constants;
mod dispatch;
mod floats;
mod fused;
mod nan;
mod operators;
mod recursion;

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, Cpu, Features, OptLevel, Settings};
use coracle_engine::runtime::{
    CallError, Engine, Func, Instance, Linker, Module, Store, TrapKind, Val,
};

/// A way to compile.
#[derive(Clone, Copy, Debug)]
struct Configuration {
    opt_level: OptLevel,
    addressing: Addressing,
    cpu: Cpu,
}

const fn configuration(opt_level: OptLevel, addressing: Addressing, cpu: Cpu) -> Configuration {
    Configuration { opt_level, addressing, cpu }
}

/// Ways that together use every path: all that matter to addresses with this machine's
/// instructions, and both levels with the oldest machine's.
const CONFIGURATIONS: [Configuration; 6] = [
    configuration(OptLevel::Speed, Addressing::Generic, Cpu::Native),
    configuration(OptLevel::None, Addressing::Generic, Cpu::Native),
    configuration(OptLevel::Speed, Addressing::Dedicated, Cpu::Native),
    configuration(OptLevel::None, Addressing::Dedicated, Cpu::Native),
    configuration(OptLevel::Speed, Addressing::Dedicated, Cpu::Baseline),
    configuration(OptLevel::None, Addressing::Generic, Cpu::Baseline),
];

impl Configuration {
    fn settings(self) -> Settings {
        let Configuration { opt_level, addressing, cpu } = self;
        let features = Features { custom_page_sizes: true, ..Features::default() };
        Settings { verifier: true, opt_level, addressing, cpu, features, ..Settings::default() }
    }
}

/// The fixed address is given out once at a time in a process.
static FIXED_ADDRESS: Mutex<()> = Mutex::new(());

/// An instance that is called by name.
struct Guest {
    store: Store,
    instance: Instance,
    /// Held as long as the store lives.
    _claim: Option<MutexGuard<'static, ()>>,
}

impl Guest {
    fn new(wat: &str, configuration: Configuration) -> Guest {
        Guest::with_imports(wat, configuration, |_| ())
    }

    fn with_imports(
        wat: &str,
        configuration: Configuration,
        define: impl FnOnce(&mut Linker),
    ) -> Guest {
        let dedicated = configuration.addressing == Addressing::Dedicated;
        let claim = dedicated.then(|| FIXED_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner));
        let engine = Engine::new();
        let image = match compile(wat.as_bytes(), &configuration.settings()) {
            Ok(image) => image,
            Err(error) => panic!("{error}\n{}", &wat[..wat.len().min(2000)]),
        };
        let module = Module::from_bytes(&engine, &image).unwrap();
        let mut store = Store::new(&engine).unwrap();
        let mut linker = Linker::new(&engine);
        define(&mut linker);
        let instance = linker.instantiate(&mut store, &module).unwrap();
        Guest { store, instance, _claim: claim }
    }

    fn memory(&mut self) -> &mut [u8] {
        let memory = self.instance.memory(&self.store, "memory").unwrap();
        memory.data_mut(&mut self.store)
    }

    /// Also of memories that threads share, of which there is no slice.
    fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let memory = self.instance.memory(&self.store, "memory").unwrap();
        let mut bytes = vec![0; len as usize];
        memory.read(&self.store, at, &mut bytes).unwrap();
        bytes
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let memory = self.instance.memory(&self.store, "memory").unwrap();
        memory.write(&mut self.store, at, bytes).unwrap();
    }

    fn func(&self, name: &str) -> Func {
        match self.instance.func(&self.store, name) {
            Some(func) => func,
            None => panic!("no function {name}"),
        }
    }

    /// The results or the kind of trap.
    fn call_func(&mut self, func: Func, args: &[Val]) -> Result<Vec<Val>, TrapKind> {
        let mut results = Vec::new();
        match func.call(&mut self.store, args, &mut results) {
            Ok(()) => Ok(results),
            Err(CallError::Trap(trap)) => Err(trap.kind()),
            Err(error) => panic!("{args:?}: {error}"),
        }
    }

    fn call(&mut self, name: &str, args: &[Val]) -> Result<Vec<Val>, TrapKind> {
        let func = self.func(name);
        self.call_func(func, args)
    }

    /// The bits of the one result.
    fn bits(&mut self, name: &str, args: &[Val]) -> Result<u128, TrapKind> {
        let func = self.func(name);
        self.call_func(func, args).map(|results| bits(&results[0]))
    }
}

/// A value's bits, zero-extended.
fn bits(value: &Val) -> u128 {
    match *value {
        Val::I32(value) => u128::from(value as u32),
        Val::I64(value) => u128::from(value as u64),
        Val::F32(value) => u128::from(value.to_bits()),
        Val::F64(value) => u128::from(value.to_bits()),
        Val::V128(value) => value,
        ref other => panic!("{other:?}"),
    }
}

/// The value of a type with these low bits.
fn value(ty: &str, bits: u128) -> Val {
    match ty {
        "i32" => Val::I32(bits as i32),
        "i64" => Val::I64(bits as i64),
        "f32" => Val::F32(f32::from_bits(bits as u32)),
        "f64" => Val::F64(f64::from_bits(bits as u64)),
        "v128" => Val::V128(bits),
        other => panic!("{other}"),
    }
}

/// The same as an expression of the text format.
fn constant(ty: &str, bits: u128) -> String {
    match ty {
        "i32" => format!("(i32.const {})", bits as i32),
        "i64" => format!("(i64.const {})", bits as i64),
        "f32" => format!("(f32.reinterpret_i32 (i32.const {}))", bits as i32),
        "f64" => format!("(f64.reinterpret_i64 (i64.const {}))", bits as i64),
        "v128" => {
            format!("(v128.const i64x2 {} {})", bits as i64, (bits >> 64) as i64)
        }
        other => panic!("{other}"),
    }
}

/// `(param …)` and a `local.get` for each.
fn params(types: &[&str]) -> (String, Vec<String>) {
    let gets = (0..types.len()).map(|n| format!("(local.get {n})")).collect();
    (format!("(param {})", types.join(" ")), gets)
}

/// Adds an exported function to a module's text.
fn export(wat: &mut String, name: &str, ty: &str, body: &str) {
    writeln!(wat, "(func (export \"{name}\") {ty} {body})").unwrap();
}

/// Numbers that look random and are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn next_wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}
