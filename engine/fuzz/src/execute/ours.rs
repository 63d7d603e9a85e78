//! The engine under test.

use std::cell::RefCell;
use std::rc::Rc;

use coracle_engine::compile::compile;
use coracle_engine::config::Settings;
use coracle_engine::runtime::{
    CallError, Caller, Engine, ExternRef, Instance, InstantiateError, Linker, Memory, Module,
    Store, StoreConfig, TrapKind, Val,
};

use super::GUEST_STACK;
use super::event::{Event, Stop, Trace, Value, hash, mix};
use super::host::{self, Failure, Log};
use super::plan::{Argument, Export, Null, Plan};
use super::{Code, lazy};

/// Carries the plan out.
///
/// # Panics
/// When the module cannot be compiled or loaded, which is a finding.
pub(super) fn run(wasm: &[u8], plan: &Plan, settings: &Settings, code: Code) -> Trace {
    let engine = Engine::new();
    let module = match code {
        Code::Complete => complete(&engine, wasm, settings),
        Code::Lazy => lazy::load(&engine, wasm, settings, 0),
    };
    let module = match module {
        Ok(module) => module,
        Err(error) => panic!("a valid module has no code: {error}"),
    };
    let config = StoreConfig {
        max_wasm_stack: GUEST_STACK,
        max_gc_heap_bytes: 64 << 20,
        ..StoreConfig::default()
    };
    let mut store = match Store::with_config(&engine, config) {
        Ok(store) => store,
        Err(error) => panic!("no store: {error}"),
    };
    let log = Log::default();
    let mut trace = Trace::default();
    let result = linker(&engine, &log).instantiate(&mut store, &module);
    trace.events.append(&mut log.borrow_mut());
    match result {
        Ok(instance) => {
            trace.push(Event::Instantiated(Ok(())));
            call_all(plan, instance, &mut store, &log, &mut trace);
        }
        Err(InstantiateError::Failed(error)) => {
            trace.push(Event::Instantiated(Err(stop(&error))));
        }
        Err(error) => {
            trace.push(Event::Instantiated(Err(Stop::Other(error.to_string()))));
        }
    }
    trace
}

fn complete(engine: &Engine, wasm: &[u8], settings: &Settings) -> Result<Module, String> {
    let image = compile(wasm, settings).map_err(|error| error.to_string())?;
    Module::from_bytes(engine, &image).map_err(|error| error.to_string())
}

fn call_all(plan: &Plan, instance: Instance, store: &mut Store, log: &Log, trace: &mut Trace) {
    for (name, arguments) in plan.calls() {
        let Some(func) = instance.func(store, name) else {
            trace.push(Event::Called(name.into(), Err(Stop::Other("not exported".into()))));
            continue;
        };
        let arguments: Vec<Val> = arguments.iter().map(argument).collect();
        let mut results = Vec::new();
        let result = func.call(store, &arguments, &mut results);
        trace.events.append(&mut log.borrow_mut());
        let result = result.map(|()| results.iter().map(value).collect());
        if !trace.push(Event::Called(name.into(), result.map_err(|error| stop(&error)))) {
            return;
        }
    }
    look(plan, instance, store, trace);
}

fn look(plan: &Plan, instance: Instance, store: &Store, trace: &mut Trace) {
    for (name, export) in &plan.exports {
        let event = match export {
            Export::Func(_) => None,
            Export::Global => instance
                .global(store, name)
                .map(|global| Event::Global(name.clone(), value(&global.get(store)))),
            Export::Memory => {
                instance.memory(store, name).map(|memory| contents(name, memory, store))
            }
            Export::Table => instance.table(store, name).map(|table| {
                let size = table.size(store);
                let nulls = (0..size).fold(size, |nulls, n| {
                    let element = table.get(store, n).as_ref().map(value);
                    mix(nulls, u64::from(element == Some(Value::Null)))
                });
                Event::Table(name.clone(), size, nulls)
            }),
        };
        trace.events.extend(event);
    }
}

/// The bytes are read, as those of a shared memory cannot be borrowed.
fn contents(name: &str, memory: Memory, store: &Store) -> Event {
    let pages = memory.size(store);
    let mut bytes = vec![0; (pages << memory.ty(store).page_size_log2) as usize];
    match memory.read(store, 0, &mut bytes) {
        Ok(()) => Event::Memory(name.into(), pages, hash(&bytes)),
        Err(error) => panic!("memory {name} of {pages} pages cannot be read: {error}"),
    }
}

fn linker(engine: &Engine, log: &Log) -> Linker {
    let mut linker = Linker::new(engine);
    macro_rules! define {
        ($name:literal, ($($arg:ident: $ty:ty),*), $result:ty, |$called:ident| $body:expr) => {{
            let log: Rc<RefCell<_>> = Rc::clone(log);
            linker.func_wrap(host::MODULE, $name, move |_: Caller<'_>, $($arg: $ty),*| -> $result {
                let $called =
                    |name, values: &[Value]| host::called(&mut log.borrow_mut(), name, values);
                $body
            });
        }};
    }
    host::define_all!(define);
    linker
}

fn argument(argument: &Argument) -> Val {
    match *argument {
        Argument::Value(Value::I32(n)) => Val::I32(n as i32),
        Argument::Value(Value::I64(n)) => Val::I64(n as i64),
        Argument::Value(Value::F32(bits)) => Val::F32(f32::from_bits(bits)),
        Argument::Value(Value::F64(bits)) => Val::F64(f64::from_bits(bits)),
        Argument::Value(Value::V128(bits)) => Val::V128(bits),
        Argument::Value(Value::Extern(n)) => Val::ExternRef(ExternRef::new(n)),
        Argument::Null(Null::Func) => Val::FuncRef(None),
        Argument::Null(Null::Any) => Val::AnyRef(None),
        Argument::Null(Null::Exn) => Val::ExnRef(None),
        _ => Val::ExternRef(None),
    }
}

fn value(value: &Val) -> Value {
    match value {
        Val::I32(n) => Value::I32(*n as u32),
        Val::I64(n) => Value::I64(*n as u64),
        Val::F32(n) => Value::F32(n.to_bits()),
        Val::F64(n) => Value::F64(n.to_bits()),
        Val::V128(bits) => Value::V128(*bits),
        Val::ExternRef(Some(reference)) => {
            reference.number().map_or(Value::Reference, Value::Extern)
        }
        Val::FuncRef(Some(_)) | Val::AnyRef(Some(_)) | Val::ExnRef(Some(_)) => Value::Reference,
        Val::FuncRef(None) | Val::ExternRef(None) | Val::AnyRef(None) | Val::ExnRef(None) => {
            Value::Null
        }
    }
}

fn stop(error: &CallError) -> Stop {
    match error {
        CallError::Trap(trap) if trap.kind() == TrapKind::StackOverflow => {
            Stop::Exhausted("stack".into())
        }
        CallError::Trap(trap) => match trap.kind() {
            TrapKind::OutOfMemory => Stop::Exhausted("objects".into()),
            // Others do not tell what kind of object was wanted.
            TrapKind::NullStruct | TrapKind::NullArray | TrapKind::NullI31 => {
                Stop::Trap(TrapKind::NullReference)
            }
            kind => Stop::Trap(kind),
        },
        CallError::Host(error) if error.is::<Failure>() => Stop::Host,
        CallError::Exception(_) => Stop::Exception,
        other => Stop::Other(other.to_string()),
    }
}
