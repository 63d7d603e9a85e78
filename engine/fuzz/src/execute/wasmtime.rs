//! The oracle wasmtime, of the release that has our code generator.

use std::sync::OnceLock;

use coracle_engine::runtime::TrapKind;
use wasmtime::{
    Caller, Config, Engine, Error, ExternRef, Instance, Linker, Module, Ref, Store,
    ThrownException, Trap, V128, Val,
};

use super::GUEST_STACK;
use super::event::{Event, Stop, Trace, Value, hash, mix};
use super::host::{self, Failure};
use super::plan::{Argument, Export, Null, Plan};
use crate::features;

type Events = Vec<Event>;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut config = Config::new();
        features::of_engine().for_each(|row| (row.wasmtime)(&mut config));
        // Its code checks everything itself: other code than ours, and the process's handlers for
        // faults are the engine's under test alone.
        config.signals_based_traps(false);
        config.max_wasm_stack(GUEST_STACK).async_stack_size(2 * GUEST_STACK);
        match Engine::new(&config) {
            Ok(engine) => engine,
            Err(error) => panic!("wasmtime cannot be set up: {error}"),
        }
    })
}

/// Carries the plan out. `None` when wasmtime does not take the module.
pub(super) fn run(wasm: &[u8], plan: &Plan) -> Option<Trace> {
    let module = match Module::new(engine(), wasm) {
        Ok(module) => module,
        Err(_) => {
            crate::stats::add("refused by wasmtime", 1);
            return None;
        }
    };
    let mut store = Store::new(engine(), Events::new());
    let mut linker = Linker::new(engine());
    define(&mut linker).ok()?;
    let mut trace = Trace::default();
    let result = linker.instantiate(&mut store, &module);
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
        let Some(func) = instance.get_func(&mut *store, name) else {
            trace.push(Event::Called(name.into(), Err(Stop::Other("not exported".into()))));
            continue;
        };
        let Some(arguments) =
            arguments.iter().map(|arg| argument(arg, store)).collect::<Option<Vec<Val>>>()
        else {
            trace.push(Event::Called(name.into(), Err(Stop::Exhausted("references".into()))));
            return;
        };
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

fn look(plan: &Plan, instance: Instance, store: &mut Store<Events>, trace: &mut Trace) {
    for (name, export) in &plan.exports {
        let event = match export {
            Export::Func(_) => None,
            Export::Global => instance.get_global(&mut *store, name).map(|global| {
                let value = value(&global.get(&mut *store), store);
                Event::Global(name.clone(), value)
            }),
            Export::Memory => memory(name, instance, store),
            Export::Table => instance.get_table(&mut *store, name).map(|table| {
                let size = table.size(&*store);
                let nulls = (0..size).fold(size, |nulls, n| {
                    let null =
                        table.get(&mut *store, n).is_some_and(|element: Ref| element.is_null());
                    mix(nulls, u64::from(null))
                });
                Event::Table(name.clone(), size, nulls)
            }),
        };
        trace.events.extend(event);
    }
}

fn memory(name: &str, instance: Instance, store: &mut Store<Events>) -> Option<Event> {
    if let Some(memory) = instance.get_shared_memory(&mut *store, name) {
        // SAFETY: the bytes of a shared memory may change at any time, but no thread other than
        // this one runs a guest, and reading bytes as they are is all that is done.
        let bytes = unsafe {
            let data = memory.data();
            std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), data.len())
        };
        return Some(Event::Memory(name.into(), memory.size(), hash(bytes)));
    }
    let memory = instance.get_memory(&mut *store, name)?;
    Some(Event::Memory(name.into(), memory.size(&*store), hash(memory.data(&*store))))
}

fn define(linker: &mut Linker<Events>) -> wasmtime::Result<()> {
    macro_rules! define {
        ($name:literal, ($($arg:ident: $ty:ty),*), Result<$result:ty, Failure>, |$called:ident| $body:expr) => {
            linker.func_wrap(
                host::MODULE,
                $name,
                |mut caller: Caller<'_, Events>, $($arg: $ty),*| -> wasmtime::Result<$result> {
                    let mut $called =
                        |name, values: &[Value]| host::called(caller.data_mut(), name, values);
                    $body.map_err(Error::new)
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

fn argument(argument: &Argument, store: &mut Store<Events>) -> Option<Val> {
    Some(match *argument {
        Argument::Value(Value::I32(n)) => Val::I32(n as i32),
        Argument::Value(Value::I64(n)) => Val::I64(n as i64),
        Argument::Value(Value::F32(bits)) => Val::F32(bits),
        Argument::Value(Value::F64(bits)) => Val::F64(bits),
        Argument::Value(Value::V128(bits)) => Val::V128(V128::from(bits)),
        Argument::Value(Value::Extern(n)) => Val::ExternRef(Some(ExternRef::new(store, n).ok()?)),
        Argument::Value(Value::Reference | Value::Null) => return None,
        Argument::Null(Null::Func) => Val::FuncRef(None),
        Argument::Null(Null::Extern) => Val::ExternRef(None),
        Argument::Null(Null::Any) => Val::AnyRef(None),
        Argument::Null(Null::Exn) => Val::ExnRef(None),
    })
}

fn value(value: &Val, store: &Store<Events>) -> Value {
    match value {
        Val::I32(n) => Value::I32(*n as u32),
        Val::I64(n) => Value::I64(*n as u64),
        Val::F32(bits) => Value::F32(*bits),
        Val::F64(bits) => Value::F64(*bits),
        Val::V128(bits) => Value::V128(bits.as_u128()),
        Val::ExternRef(Some(reference)) => {
            let number = reference.data(store).ok().flatten();
            match number.and_then(|data| data.downcast_ref::<u32>()) {
                Some(&n) => Value::Extern(n),
                None => Value::Reference,
            }
        }
        other => match other.ref_() {
            Some(reference) if !reference.is_null() => Value::Reference,
            _ => Value::Null,
        },
    }
}

fn stop(error: &Error) -> Stop {
    if error.is::<Failure>() {
        return Stop::Host;
    }
    if error.is::<ThrownException>() {
        return Stop::Exception;
    }
    if error.is::<wasmtime::GcHeapOutOfMemory<()>>() {
        return Stop::Exhausted("objects".into());
    }
    let Some(trap) = error.downcast_ref::<Trap>() else { return Stop::Other(format!("{error:?}")) };
    Stop::Trap(match trap {
        Trap::UnreachableCodeReached => TrapKind::Unreachable,
        Trap::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
        Trap::HeapMisaligned => TrapKind::UnalignedAtomic,
        Trap::TableOutOfBounds => TrapKind::TableOutOfBounds,
        Trap::IndirectCallToNull => TrapKind::UninitializedElement,
        Trap::BadSignature => TrapKind::IndirectCallTypeMismatch,
        Trap::IntegerOverflow => TrapKind::IntegerOverflow,
        Trap::IntegerDivisionByZero => TrapKind::IntegerDivideByZero,
        Trap::BadConversionToInteger => TrapKind::InvalidConversionToInteger,
        Trap::NullReference => TrapKind::NullReference,
        Trap::AtomicWaitNonSharedMemory => TrapKind::ExpectedSharedMemory,
        Trap::ArrayOutOfBounds => TrapKind::ArrayOutOfBounds,
        Trap::CastFailure => TrapKind::CastFailure,
        Trap::AllocationTooLarge => return Stop::Exhausted("objects".into()),
        Trap::StackOverflow => return Stop::Exhausted("stack".into()),
        other => return Stop::Other(other.to_string()),
    })
}
