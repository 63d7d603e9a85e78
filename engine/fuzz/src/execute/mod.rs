//! Target `execute`: a generated module does the same in every configuration of the engine and in
//! other engines.
//!
//! `generate` makes a module and says who can run it; `plan` lists what to call and look at;
//! `ours`, `interpreter` (wasmi) and `wasmtime` carry the plan out and note events; `event` compares.

mod event;
mod generate;
mod host;
mod interpreter;
mod known;
#[path = "../../../tests/lazy/mod.rs"]
mod lazy;
mod ours;
mod plan;
mod wasmtime;

use arbitrary::Unstructured;
use coracle_engine::config::{Addressing, Features, OptLevel, Settings};

use crate::stats;
pub use event::{Event, Stop, Trace, Value};
use generate::Case;
use plan::Plan;

/// Bytes of native stack for guests. Enough for every recursion that fuel permits in any
/// configuration, so that a used-up stack is rare and shows.
const GUEST_STACK: usize = 48 << 20;
/// Bytes of the thread's stack.
const THREAD_STACK: usize = 64 << 20;

/// The engine's configurations.
const CONFIGURATIONS: [(&str, Addressing, OptLevel, Code); 5] = [
    ("generic, optimised", Addressing::Generic, OptLevel::Speed, Code::Complete),
    ("dedicated, optimised", Addressing::Dedicated, OptLevel::Speed, Code::Complete),
    ("generic, not optimised", Addressing::Generic, OptLevel::None, Code::Complete),
    ("dedicated, not optimised", Addressing::Dedicated, OptLevel::None, Code::Complete),
    ("first start", Addressing::Generic, OptLevel::None, Code::Lazy),
];

/// When functions are compiled.
#[derive(Clone, Copy)]
enum Code {
    /// Before anything runs.
    Complete,
    /// When they are first called.
    Lazy,
}

/// Runs an input.
///
/// # Panics
/// When it is a finding.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(case) = generate::case(&mut input) else { return };
    check(&case.wasm, &case);
}

/// Runs a module, binary or text, that was kept from an earlier finding: everywhere that can.
///
/// # Panics
/// When it is a finding, or no valid module.
pub fn run_module(wasm: &[u8]) {
    let wasm = match wat::parse_bytes(wasm) {
        Ok(wasm) => wasm.into_owned(),
        Err(error) => panic!("not a module: {error}"),
    };
    check(&wasm, &Case { wasm: wasm.clone(), interpreter: true, wasmtime: true, half: None });
}

/// The module that an input stands for.
#[must_use]
pub fn module(data: &[u8]) -> Option<Vec<u8>> {
    generate::case(&mut Unstructured::new(data)).ok().map(|case| case.wasm)
}

fn check(wasm: &[u8], case: &Case) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(THREAD_STACK);
        let thread = thread.spawn_scoped(scope, || compare(wasm, case));
        // A panic of the thread is the finding.
        let joined = thread.map(std::thread::ScopedJoinHandle::join);
        if let Ok(Err(finding)) = joined {
            std::panic::resume_unwind(finding);
        }
    });
}

fn compare(wasm: &[u8], case: &Case) {
    let plan = Plan::new(wasm);
    let mut traces = Vec::new();
    if case.interpreter {
        traces.extend(interpreter::run(wasm, &plan).map(|trace| ("wasmi", trace)));
    }
    if case.wasmtime {
        traces.extend(wasmtime::run(wasm, &plan).map(|trace| ("wasmtime", trace)));
    }
    stats::add("modules compared", u64::from(!traces.is_empty()));
    for (n, (name, addressing, opt_level, code)) in CONFIGURATIONS.into_iter().enumerate() {
        if case.half.is_some_and(|half| (n % 2 == 0) != half) {
            continue;
        }
        let settings = Settings {
            addressing,
            opt_level,
            features: Features::all(),
            verifier: true,
            regalloc_checker: true,
            ..Settings::default()
        };
        traces.push((name, ours::run(wasm, &plan, &settings, code)));
    }
    if let Some((_, trace)) = traces.first() {
        trace.events.iter().for_each(|event| event.count());
    }
    let mut rest = traces.iter();
    let Some((first_name, first)) = rest.next() else { return };
    for (name, trace) in rest {
        if let Some(difference) = first.difference(trace) {
            stats::add("disagreements", 1);
            panic!("{first_name} and {name} disagree\n{difference}");
        }
    }
}
