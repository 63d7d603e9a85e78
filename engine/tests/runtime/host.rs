//! Host functions: arguments, errors, panics, memory, nested calls.

use std::cell::RefCell;
use std::rc::Rc;

use coracle_engine::runtime::{CallError, Caller, Func, HostError, HostPanic, TrapKind, Val};

use crate::{World, names};

#[test]
fn arguments_and_results_of_every_type_pass_unchanged() {
    let mut world = World::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    world.linker.func_wrap(
        "h",
        "many",
        #[allow(clippy::too_many_arguments, reason = "twelve is the most there can be")]
        move |_: Caller<'_>,
              a: i32,
              b: i64,
              c: f32,
              d: f64,
              e: u32,
              f: u64,
              g: i32,
              h: i32,
              i: i32,
              j: i32,
              k: f64,
              l: i64| {
            log.borrow_mut().push(format!("{a} {b} {c} {d} {e} {f} {g} {h} {i} {j} {k} {l}"));
            (l, k, c, a)
        },
    );
    let instance = world.instance(
        r#"(module (import "h" "many" (func $many
                (param i32 i64 f32 f64 i32 i64 i32 i32 i32 i32 f64 i64) (result i64 f64 f32 i32)))
            (func (export "f") (result i64 f64 f32 i32) (call $many
                (i32.const -1) (i64.const -2) (f32.const 1.5) (f64.const -2.5) (i32.const -1) (i64.const -1)
                (i32.const 7) (i32.const 8) (i32.const 9) (i32.const 10) (f64.const 1e300) (i64.const 12))))"#,
    );
    let results = world.call(instance, "f", &[]).unwrap();
    assert!(
        matches!(results[..], [Val::I64(12), Val::F64(1e300), Val::F32(1.5), Val::I32(-1)]),
        "{results:?}"
    );
    let k = 1e300f64;
    let expected = format!("-1 -2 1.5 -2.5 {} {} 7 8 9 10 {k} 12", u32::MAX, u64::MAX);
    assert_eq!(*seen.borrow(), [expected]);
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("exit {0}")]
struct Exit(i32);

#[test]
fn an_error_of_the_host_ends_the_call_and_keeps_its_type() {
    let mut world = World::new();
    world
        .linker
        .func_wrap("h", "exit", |_: Caller<'_>, code: i32| -> Result<(), Exit> { Err(Exit(code)) });
    let instance = world.instance(
        r#"(module (import "h" "exit" (func $exit (param i32)))
            (func (export "f") (call $exit (i32.const 3)) unreachable))"#,
    );
    let Err(CallError::Host(error)) = world.call(instance, "f", &[]) else { panic!("no error") };
    assert_eq!(error.downcast_ref::<Exit>(), Some(&Exit(3)));
}

#[test]
fn a_panic_of_the_host_ends_the_call_and_not_the_process() {
    let mut world = World::new();
    world.linker.func_wrap("h", "panic", |_: Caller<'_>| -> () { panic!("oh {}", "no") });
    let instance = world.instance(
        r#"(module (import "h" "panic" (func $panic))
            (func (export "f") (call $panic))
            (func (export "ok") (result i32) (i32.const 1)))"#,
    );
    let Err(CallError::Host(error)) = world.call(instance, "f", &[]) else { panic!("no error") };
    assert_eq!(error.to_string(), "host function panicked: oh no");
    assert!(error.is::<HostPanic>());
    assert_eq!(world.call_i32(instance, "ok", &[]), 1);
}

#[test]
fn the_caller_is_the_importing_instance() {
    let mut world = World::new();
    world.linker.func_wrap("h", "first", |mut caller: Caller<'_>| -> i32 {
        caller.memory().map_or(-1, |memory| i32::from(memory[0]))
    });
    let import = r#"(import "h" "first" (func $first (result i32)))
        (func (export "f") (result i32) (call $first))"#;
    let exported = world.instance(&format!(
        r#"(module {import} (memory (export "memory") 1) (data (i32.const 0) "A"))"#
    ));
    let hidden =
        world.instance(&format!(r#"(module {import} (memory 1) (data (i32.const 0) "B"))"#));
    let none = world.instance(&format!("(module {import})"));
    assert_eq!(world.call_i32(exported, "f", &[]), i32::from(b'A'));
    assert_eq!(world.call_i32(hidden, "f", &[]), i32::from(b'B'));
    assert_eq!(world.call_i32(none, "f", &[]), -1);
}

#[test]
fn the_callers_memory_is_what_it_has_grown_to() {
    let mut world = World::new();
    world.linker.func_wrap("h", "len", |mut caller: Caller<'_>| {
        let memory = caller.memory().unwrap();
        let last = memory.len() - 1;
        memory[last] = 9;
        memory.len() as u32
    });
    let instance = world.instance(
        r#"(module (import "h" "len" (func $len (result i32))) (memory 1)
            (func (export "f") (result i32)
                (drop (memory.grow (i32.const 2)))
                (drop (call $len))
                (i32.load8_u (i32.const 196607))))"#,
    );
    assert_eq!(world.call_i32(instance, "f", &[]), 9);
}

/// Guests call the host, which calls the function that it was given last.
fn nesting(world: &mut World, swallow: bool) -> Rc<RefCell<Option<Func>>> {
    let target = Rc::new(RefCell::new(None::<Func>));
    let inner = Rc::clone(&target);
    world.linker.func_wrap("h", "nest", move |mut caller: Caller<'_>| -> Result<i32, HostError> {
        let func = inner.borrow().ok_or("no target")?;
        match func.call(&mut caller, &[], &mut Vec::new()) {
            Err(CallError::Trap(_)) if swallow => Ok(-1),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(0),
        }
    });
    target
}

const NESTED: &str = r#"(module (import "h" "nest" (func $nest (result i32)))
    (func $deep unreachable)
    (func $inner (export "inner") (call $deep))
    (func $middle (result i32) (call $nest))
    (func (export "outer") (result i32) (call $middle))
    (func (export "twice") (result i32) (drop (call $middle)) unreachable))"#;

#[test]
fn a_trap_in_a_nested_call_shows_the_guests_whole_stack() {
    let mut world = World::new();
    let target = nesting(&mut world, false);
    let instance = world.instance(NESTED);
    *target.borrow_mut() = instance.func(&world.store, "inner");
    let trap = world.trap(instance, "outer", &[]);
    assert_eq!(trap.kind(), TrapKind::Unreachable);
    assert_eq!(names(&trap), ["deep", "inner", "middle", "outer"]);
    assert_eq!(trap.backtrace()[3].func_index, 4);
}

#[test]
fn a_trap_that_the_host_swallows_leaves_the_outer_call_intact() {
    let mut world = World::new();
    let target = nesting(&mut world, true);
    let instance = world.instance(NESTED);
    *target.borrow_mut() = instance.func(&world.store, "inner");
    assert_eq!(world.call_i32(instance, "outer", &[]), -1);
    let trap = world.trap(instance, "twice", &[]);
    assert_eq!((trap.kind(), trap.backtrace().len()), (TrapKind::Unreachable, 1));
}

#[test]
fn endless_recursion_through_the_host_exhausts_the_stack() {
    let mut world = World::new();
    let target = nesting(&mut world, false);
    let instance = world.instance(NESTED);
    *target.borrow_mut() = instance.func(&world.store, "outer");
    let trap = world.trap(instance, "outer", &[]);
    assert_eq!(trap.kind(), TrapKind::StackOverflow);
    *target.borrow_mut() = instance.func(&world.store, "inner");
    assert_eq!(world.trap(instance, "outer", &[]).kind(), TrapKind::Unreachable);
}

#[test]
fn a_function_of_the_host_can_be_called_by_the_host_and_through_tables() {
    let mut world = World::new();
    let double = Func::wrap(&mut world.store, |_: Caller<'_>, n: i32| n * 2);
    let mut results = Vec::new();
    // No module knows the type yet.
    double.call(&mut world.store, &[Val::I32(4)], &mut results).unwrap();
    assert!(matches!(results[..], [Val::I32(8)]));
    let instance = world.instance(
        r#"(module (table (export "t") 3 funcref) (type $u (func (param i32) (result i32)))
            (func (export "f") (param i32) (result i32)
                (call_indirect (type $u) (local.get 0) (i32.const 1))))"#,
    );
    let table = instance.table(&world.store, "t").unwrap();
    table.set(&mut world.store, 1, Val::FuncRef(Some(double))).unwrap();
    assert_eq!(world.call_i32(instance, "f", &[Val::I32(21)]), 42);
    let Some(Val::FuncRef(Some(again))) = table.get(&world.store, 1) else { panic!("no function") };
    assert_eq!(again, double);
    let failing =
        Func::wrap(&mut world.store, |_: Caller<'_>| -> Result<(), Exit> { Err(Exit(1)) });
    let Err(CallError::Host(error)) = failing.call(&mut world.store, &[], &mut results) else {
        panic!("no error")
    };
    assert!(error.is::<Exit>());
}

#[test]
fn wrong_arguments_are_refused() {
    let mut world = World::new();
    let instance = world.instance(r#"(module (func (export "f") (param i32)))"#);
    for args in [&[][..], &[Val::I64(1)], &[Val::I32(1), Val::I32(2)]] {
        let result = world.call(instance, "f", args);
        assert!(matches!(result, Err(CallError::Arguments { .. })), "{result:?}");
    }
}
