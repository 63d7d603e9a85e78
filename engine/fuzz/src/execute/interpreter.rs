//! The oracle wasmi, an interpreter.

use std::sync::OnceLock;

use coracle_engine::runtime::TrapKind;
use wasmi::errors::{ErrorKind, InstantiationError};
use wasmi::{
    Caller, Config, Engine, Error, ExternRef, F32, F64, Instance, Linker, Module, Nullable, Ref,
    Store, TrapCode, V128, Val,
};

use super::event::{Event, Stop, Trace, Value, hash, mix};
use super::host::{self, Failure};
use super::known::wasmi_is_wrong;
use super::plan::{Argument, Export, Null, Plan};

type Events = Vec<Event>;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut config = Config::default();
        // Fuel bounds recursion; wasmi has its stack on the heap.
        config.set_max_recursion_depth(1 << 20).set_max_stack_height(256 << 20);
        config
            .wasm_multi_memory(true)
            .wasm_memory64(true)
            .wasm_tail_call(true)
            .wasm_wide_arithmetic(true)
            .wasm_custom_page_sizes(true);
        Engine::new(&config)
    })
}

/// Carries the plan out. `None` when wasmi does not take the module, or is known to get it wrong.
pub(super) fn run(wasm: &[u8], plan: &Plan) -> Option<Trace> {
    if wasmi_is_wrong(wasm) {
        crate::stats::add("left out for a fault of wasmi", 1);
        return None;
    }
    let module = match Module::new(engine(), wasm) {
        Ok(module) => module,
        Err(_) => {
            crate::stats::add("refused by wasmi", 1);
            return None;
        }
    };
    let mut store = Store::new(engine(), Events::new());
    let mut linker = Linker::new(engine());
    define(&mut linker).ok()?;
    let mut trace = Trace::default();
    let result = linker.instantiate_and_start(&mut store, &module);
    trace.events.append(store.data_mut());
    match result {
        Ok(instance) => {
            trace.push(Event::Instantiated(Ok(())));
            call_all(plan, instance, &mut store, &mut trace);
        }
        Err(error) => {
            trace.push(Event::Instantiated(Err(stop(&error))));
        }
    }
    Some(trace)
}

fn call_all(plan: &Plan, instance: Instance, store: &mut Store<Events>, trace: &mut Trace) {
    for (name, arguments) in plan.calls() {
        let Some(func) = instance.get_func(&*store, name) else {
            trace.push(Event::Called(name.into(), Err(Stop::Other("not exported".into()))));
            continue;
        };
        let arguments: Vec<Val> = arguments.iter().map(|arg| argument(arg, store)).collect();
        let mut results = vec![Val::I32(0); func.ty(&*store).results().len()];
        let result = func.call(&mut *store, &arguments, &mut results);
        trace.events.append(store.data_mut());
        let result = match result {
            Ok(()) => Ok(results.iter().map(|result| value(result, store)).collect()),
            Err(error) => Err(stop(&error)),
        };
        if !trace.push(Event::Called(name.into(), result)) {
            return;
        }
    }
    look(plan, instance, store, trace);
}

fn look(plan: &Plan, instance: Instance, store: &Store<Events>, trace: &mut Trace) {
    for (name, export) in &plan.exports {
        let event = match export {
            Export::Func(_) => None,
            Export::Global => instance
                .get_global(store, name)
                .map(|global| Event::Global(name.clone(), value(&global.get(store), store))),
            Export::Memory => instance.get_memory(store, name).map(|memory| {
                Event::Memory(name.clone(), memory.size(store), hash(memory.data(store)))
            }),
            Export::Table => instance.get_table(store, name).map(|table| {
                let size = table.size(store);
                let nulls = (0..size).fold(size, |nulls, n| {
                    let null = table.get(store, n).is_some_and(|element: Ref| element.is_null());
                    mix(nulls, u64::from(null))
                });
                Event::Table(name.clone(), size, nulls)
            }),
        };
        trace.events.extend(event);
    }
}

fn define(linker: &mut Linker<Events>) -> Result<(), Error> {
    macro_rules! define {
        ($name:literal, ($($arg:ident: $ty:ty),*), Result<$result:ty, Failure>, |$called:ident| $body:expr) => {
            linker.func_wrap(
                host::MODULE,
                $name,
                |mut caller: Caller<'_, Events>, $($arg: $ty),*| -> Result<$result, Error> {
                    let mut $called =
                        |name, values: &[Value]| host::called(caller.data_mut(), name, values);
                    $body.map_err(Error::host)
                },
            )?;
        };
        ($name:literal, ($($arg:ident: $ty:ty),*), $result:ty, |$called:ident| $body:expr) => {
            linker.func_wrap(
                host::MODULE,
                $name,
                |mut caller: Caller<'_, Events>, $($arg: $ty),*| -> $result {
                    let mut $called =
                        |name, values: &[Value]| host::called(caller.data_mut(), name, values);
                    $body
                },
            )?;
        };
    }
    host::define_all!(define);
    Ok(())
}

fn argument(argument: &Argument, store: &mut Store<Events>) -> Val {
    match *argument {
        Argument::Value(Value::I32(n)) => Val::I32(n as i32),
        Argument::Value(Value::I64(n)) => Val::I64(n as i64),
        Argument::Value(Value::F32(bits)) => Val::F32(F32::from_bits(bits)),
        Argument::Value(Value::F64(bits)) => Val::F64(F64::from_bits(bits)),
        Argument::Value(Value::V128(bits)) => Val::V128(V128::from(bits)),
        Argument::Value(Value::Extern(n)) => {
            Val::ExternRef(Nullable::Val(ExternRef::new::<u32>(store, n)))
        }
        Argument::Null(Null::Func) => Val::FuncRef(Nullable::Null),
        _ => Val::ExternRef(Nullable::Null),
    }
}

fn value(value: &Val, store: &Store<Events>) -> Value {
    match value {
        Val::I32(n) => Value::I32(*n as u32),
        Val::I64(n) => Value::I64(*n as u64),
        Val::F32(n) => Value::F32(n.to_bits()),
        Val::F64(n) => Value::F64(n.to_bits()),
        Val::V128(bits) => Value::V128(bits.as_u128()),
        Val::ExternRef(Nullable::Val(reference)) => {
            match reference.data(store).downcast_ref::<u32>() {
                Some(&n) => Value::Extern(n),
                None => Value::Reference,
            }
        }
        Val::FuncRef(Nullable::Val(_)) => Value::Reference,
        Val::FuncRef(Nullable::Null) | Val::ExternRef(Nullable::Null) => Value::Null,
    }
}

fn stop(error: &Error) -> Stop {
    if let Some(code) = error.as_trap_code() {
        return Stop::Trap(match code {
            TrapCode::UnreachableCodeReached => TrapKind::Unreachable,
            TrapCode::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
            TrapCode::TableOutOfBounds => TrapKind::TableOutOfBounds,
            TrapCode::IndirectCallToNull => TrapKind::UninitializedElement,
            TrapCode::IntegerDivisionByZero => TrapKind::IntegerDivideByZero,
            TrapCode::IntegerOverflow => TrapKind::IntegerOverflow,
            TrapCode::BadConversionToInteger => TrapKind::InvalidConversionToInteger,
            TrapCode::BadSignature => TrapKind::IndirectCallTypeMismatch,
            other => return Stop::Exhausted(format!("{other:?}")),
        });
    }
    match error.kind() {
        ErrorKind::Host(error) if error.is::<Failure>() => Stop::Host,
        // An active segment past the table's end, which is a trap of instantiation.
        ErrorKind::Instantiation(InstantiationError::ElementSegmentDoesNotFit { .. }) => {
            Stop::Trap(TrapKind::TableOutOfBounds)
        }
        _ => Stop::Other(error.to_string()),
    }
}
