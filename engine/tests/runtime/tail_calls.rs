//! Tail calls: constant stack, every kind of callee, many values, what a backtrace shows of them.

use coracle_engine::runtime::{CallError, Caller, Func, TrapKind, Val};

use crate::{World, names};

const MILLIONS: i32 = 5_000_000;

#[test]
fn mutual_tail_calls_without_end_need_no_stack() {
    let mut world = World::new();
    // The two differ in the number of parameters, so that their stack arguments differ in size.
    let (many, zeros) = ("i64 ".repeat(24), "(i64.const 7)".repeat(24));
    let instance = world.instance(&format!(
        r#"(module
            (type $even (func (param i32) (result i32)))
            (table funcref (elem $even $odd_indirect))
            (func $even (export "even") (type $even)
                (if (i32.eqz (local.get 0)) (then (return (i32.const 1))))
                (return_call $odd (i32.sub (local.get 0) (i32.const 1)) {zeros}))
            (func $odd (param i32 {many}) (result i32)
                (if (i32.eqz (local.get 0)) (then (return (i32.wrap_i64 (local.get 24)))))
                (return_call $even (i32.sub (local.get 0) (i32.const 1))))
            (func $even_indirect (export "even_indirect") (type $even)
                (if (i32.eqz (local.get 0)) (then (return (i32.const 1))))
                (return_call_indirect (type $even)
                    (i32.sub (local.get 0) (i32.const 1)) (i32.const 1)))
            (func $odd_indirect (type $even)
                (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
                (return_call $even_indirect (i32.sub (local.get 0) (i32.const 1)))))"#,
    ));
    assert_eq!(world.call_i32(instance, "even", &[Val::I32(MILLIONS)]), 1);
    assert_eq!(world.call_i32(instance, "even", &[Val::I32(MILLIONS + 1)]), 7);
    assert_eq!(world.call_i32(instance, "even_indirect", &[Val::I32(MILLIONS)]), 1);
    assert_eq!(world.call_i32(instance, "even_indirect", &[Val::I32(MILLIONS + 1)]), 0);
}

#[test]
fn instances_call_each_other_by_tail_calls() {
    let mut world = World::new();
    let table = world.instance(r#"(module (table (export "t") 1 funcref))"#);
    world.linker.instance("table", table);
    let first = world.instance(
        r#"(module (type $f (func (param i32) (result i32))) (import "table" "t" (table 1 funcref))
            (global $calls (mut i32) (i32.const 0))
            (func (export "calls") (result i32) (global.get $calls))
            (func (export "ping") (type $f)
                (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                (if (i32.eqz (local.get 0)) (then (return (i32.const 11))))
                (return_call_indirect (type $f)
                    (i32.sub (local.get 0) (i32.const 1)) (i32.const 0))))"#,
    );
    world.linker.instance("first", first);
    let second = world.instance(
        r#"(module (type $f (func (param i32) (result i32))) (import "table" "t" (table 1 funcref))
            (import "first" "ping" (func $ping (type $f)))
            (elem (i32.const 0) $pong)
            (func $pong (export "pong") (type $f)
                (if (i32.eqz (local.get 0)) (then (return (i32.const 22))))
                (return_call $ping (i32.sub (local.get 0) (i32.const 1)))))"#,
    );
    assert_eq!(world.call_i32(second, "pong", &[Val::I32(MILLIONS)]), 22);
    assert_eq!(world.call_i32(second, "pong", &[Val::I32(MILLIONS + 1)]), 11);
    // Each call ran with the context of its own instance.
    assert_eq!(world.call_i32(first, "calls", &[]), MILLIONS + 1);
}

#[test]
fn results_beyond_the_registers_arrive_where_the_first_caller_wants_them() {
    let mut world = World::new();
    let count = 40;
    let results = "i32 ".repeat(count);
    let adds = "i32.add ".repeat(count - 1);
    let values: String = (0..count).map(|n| format!("(i32.const {})", 1 << (n % 20))).collect();
    let instance = world.instance(&format!(
        r#"(module
            (func $last (param f64 i64) (result {results}) {values})
            (func $first (result {results}) (return_call $last (f64.const 1) (i64.const 3)))
            (func (export "sum") (result i32) (call $first) {adds}))"#
    ));
    assert_eq!(world.call_i32(instance, "sum", &[]), 2 * ((1 << 20) - 1));
}

#[test]
fn functions_of_the_host_are_callees_too() {
    let mut world = World::new();
    world.linker.func_wrap("h", "twice", |_: Caller<'_>, n: i32| n * 2);
    world
        .linker
        .func_wrap("h", "sum", |_: Caller<'_>, a: i64, b: f64, c: i32| (a + i64::from(c), b, c));
    world.linker.func_wrap("h", "fail", |_: Caller<'_>| -> Result<(), std::fmt::Error> {
        Err(std::fmt::Error)
    });
    let instance = world.instance(
        r#"(module
            (import "h" "twice" (func $twice (param i32) (result i32)))
            (import "h" "sum" (func $sum (param i64 f64 i32) (result i64 f64 i32)))
            (import "h" "fail" (func $fail))
            (type $unary (func (param i32) (result i32)))
            (table funcref (elem $twice))
            (func $direct (result i32) (return_call $twice (i32.const 21)))
            (func (export "direct") (result i32) (i32.add (call $direct) (i32.const 1)))
            (func (export "indirect") (result i32)
                (return_call_indirect (type $unary) (i32.const 4) (i32.const 0)))
            (func (export "sum") (result i64 f64 i32)
                (return_call $sum (i64.const 40) (f64.const 1.5) (i32.const 2)))
            (func $failing (return_call $fail))
            (func (export "fail") (call $failing)))"#,
    );
    assert_eq!(world.call_i32(instance, "direct", &[]), 43);
    assert_eq!(world.call_i32(instance, "indirect", &[]), 8);
    let results = world.call(instance, "sum", &[]).unwrap();
    assert!(matches!(results[..], [Val::I64(42), Val::F64(1.5), Val::I32(2)]), "{results:?}");
    let Err(CallError::Host(error)) = world.call(instance, "fail", &[]) else { panic!("no error") };
    assert!(error.is::<std::fmt::Error>());
}

#[test]
fn a_backtrace_lacks_the_functions_that_made_room() {
    let mut world = World::new();
    let wat = r#"(module
        (type $v (func)) (table funcref (elem $trap))
        (func $trap (drop (i32.div_u (i32.const 1) (i32.const 0))))
        (func $gone (return_call_indirect (type $v) (i32.const 0)))
        (func $also_gone (return_call $gone))
        (func $waits (call $also_gone))
        (func (export "f") (call $waits))
        (func (export "only") (return_call $trap))
        (func (export "null") (return_call_indirect (type $v) (i32.const 1))))"#;
    let instance = world.instance(wat);
    let trap = world.trap(instance, "f", &[]);
    assert_eq!(trap.kind(), TrapKind::IntegerDivideByZero);
    assert_eq!(names(&trap), ["trap", "waits", "f"]);
    let wasm = wat::parse_str(wat).unwrap();
    let offset = |n: usize| trap.backtrace()[n].wasm_offset.unwrap() as usize;
    assert_eq!((wasm[offset(0)], wasm[offset(1)], wasm[offset(2)]), (0x6e, 0x10, 0x10));
    assert_eq!(names(&world.trap(instance, "only", &[])), ["trap"]);
    // What the check before a tail call finds is the caller's own.
    let trap = world.trap(instance, "null", &[]);
    assert_eq!((trap.kind(), names(&trap)), (TrapKind::TableOutOfBounds, vec!["null"]));
}

#[test]
fn a_trap_below_a_host_function_that_was_tail_called_shows_the_frames_around_it() {
    let mut world = World::new();
    let target = std::rc::Rc::new(std::cell::Cell::new(None::<Func>));
    let inner = std::rc::Rc::clone(&target);
    world.linker.func_wrap("h", "nest", move |mut caller: Caller<'_>| -> Result<(), CallError> {
        inner.get().map_or(Ok(()), |func| func.call(&mut caller, &[], &mut Vec::new()))
    });
    let instance = world.instance(
        r#"(module (import "h" "nest" (func $nest))
            (func $deep unreachable)
            (func (export "inner") (return_call $deep))
            (func $leaves (return_call $nest))
            (func (export "outer") (call $leaves)))"#,
    );
    target.set(instance.func(&world.store, "inner"));
    let trap = world.trap(instance, "outer", &[]);
    assert_eq!(trap.kind(), TrapKind::Unreachable);
    assert_eq!(names(&trap), ["deep", "outer"]);
}

#[test]
fn recursion_between_tail_calls_still_exhausts_the_stack() {
    let mut world = World::new();
    let many = "i64 ".repeat(100);
    let args: String = (0..100).map(|n| format!("(local.get {n})")).collect();
    let zeros = "(i64.const 0)".repeat(100);
    let instance = world.instance(&format!(
        r#"(module
            (func $f (param {many}) (result i32) (i32.add (call $g) (i32.const 1)))
            (func $h (param {many}) (result i32) (return_call $f {args}))
            (func $g (export "g") (result i32) (return_call $h {zeros})))"#
    ));
    for _ in 0..2 {
        assert_eq!(world.trap(instance, "g", &[]).kind(), TrapKind::StackOverflow);
    }
}
