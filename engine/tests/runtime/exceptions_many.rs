//! Exceptions in quantity: out of deep stacks, near their ends, and in heaps that they fill.

use coracle_engine::runtime::{CallError, StoreConfig, TrapKind, Val};

use crate::exceptions_host::nesting;
use crate::{World, names};

#[test]
fn a_million_exceptions_take_no_more_memory_than_one() {
    // A heap that a few thousand exceptions fill.
    let config = StoreConfig { max_gc_heap_bytes: 8 << 20, ..StoreConfig::default() };
    let mut world = World::with_config(config);
    let target = nesting(&mut world);
    let instance = world.instance(
        r#"(module
            (import "h" "nest" (func $nest))
            (tag $t (param i32 exnref))
            (func $throw (param i32) (throw $t (local.get 0) (ref.null exn)))
            (func (export "inner") (call $throw (i32.const 1)))
            (func (export "f") (param $n i32) (result i32) (local $sum i32)
                (loop $again
                    (block $caught (result i32 exnref exnref)
                        (try_table (catch_ref $t $caught) (call $throw (i32.const 2)))
                        unreachable)
                    drop drop
                    (local.set $sum (i32.add (local.get $sum)))
                    (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
                (local.get $sum))
            (func (export "host") (param $n i32) (result i32) (local $sum i32)
                (loop $again
                    (block $caught (result i32 exnref exnref)
                        (try_table (catch_ref $t $caught) (call $nest))
                        unreachable)
                    drop drop
                    (local.set $sum (i32.add (local.get $sum)))
                    (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
                (local.get $sum)))"#,
    );
    *target.borrow_mut() = instance.func(&world.store, "inner");
    assert_eq!(world.call_i32(instance, "f", &[Val::I32(1_000_000)]), 2_000_000);
    assert_eq!(world.call_i32(instance, "host", &[Val::I32(300_000)]), 300_000);
}

#[test]
fn exceptions_that_fill_the_heap_are_a_trap() {
    let config = StoreConfig { max_gc_heap_bytes: 1 << 20, ..StoreConfig::default() };
    let mut world = World::with_config(config);
    let instance = world.instance(
        r#"(module
            (tag $t (param exnref))
            (func $throw (param exnref) (throw $t (local.get 0)))
            ;; Each holds the one before.
            (func (export "chain") (local $last exnref)
                (loop $again
                    (block $caught (result exnref exnref)
                        (try_table (catch_ref $t $caught) (call $throw (local.get $last)))
                        unreachable)
                    (local.set $last)
                    drop
                    (br $again)))
            (func $scrub (export "scrub") (param i32) (result i32)
                (if (result i32) (local.get 0)
                    (then (i32.add (local.get 0)
                        (call $scrub (i32.sub (local.get 0) (i32.const 1)))))
                    (else (i32.const 0))))
            (func (export "f") (call $throw (ref.null exn))))"#,
    );
    let trap = world.trap(instance, "chain", &[]);
    assert_eq!((trap.kind(), names(&trap)), (TrapKind::OutOfMemory, vec!["throw", "chain"]));
    // All of it is free again, once nothing on the stack looks like the end of the chain.
    world.call(instance, "scrub", &[Val::I32(1000)]).unwrap();
    world.exception(instance, "f", &[]);
}

/// Recursion of some depth with a throw at the bottom, in every way that a call can be made.
const DEEP: &str = r#"(module
    (import "h" "nest" (func $nest))
    (tag $t (param i32))
    (type $f (func (param i32) (result i32)))
    (table funcref (elem $indirect))
    (global $left (mut i32) (i32.const 0))
    (func $direct (type $f)
        (if (i32.eqz (local.get 0)) (then (throw $t (i32.const 5))))
        (i32.add (i32.const 1) (call $direct (i32.sub (local.get 0) (i32.const 1)))))
    (func $indirect (type $f)
        (if (i32.eqz (local.get 0)) (then (throw $t (i32.const 6))))
        (i32.add (i32.const 1)
            (call_indirect (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0))))
    (func $host (export "host")
        (if (i32.eqz (global.get $left)) (then (throw $t (i32.const 7))))
        (global.set $left (i32.sub (global.get $left) (i32.const 1)))
        (call $nest)
        (global.set $left (i32.const -1)))
    (func (export "catch_direct") (type $f)
        (block $caught (result i32)
            (try_table (catch $t $caught) (drop (call $direct (local.get 0))))
            (i32.const 0)))
    (func (export "catch_indirect") (type $f)
        (block $caught (result i32)
            (try_table (catch $t $caught) (drop (call $indirect (local.get 0))))
            (i32.const 0)))
    (func (export "catch_host") (type $f)
        (global.set $left (local.get 0))
        (block $caught (result i32)
            (try_table (catch $t $caught) (call $host))
            (i32.const 0))))"#;

#[test]
fn an_exception_leaves_a_deep_stack() {
    let mut world = World::new();
    let target = nesting(&mut world);
    let instance = world.instance(DEEP);
    *target.borrow_mut() = instance.func(&world.store, "host");
    for _ in 0..3 {
        for depth in [0, 1, 10_000] {
            for (name, expected) in [("catch_direct", 5), ("catch_indirect", 6)] {
                assert_eq!(world.call_i32(instance, name, &[Val::I32(depth)]), expected);
            }
        }
        for depth in [0, 1, 300] {
            assert_eq!(world.call_i32(instance, "catch_host", &[Val::I32(depth)]), 7);
        }
        // Too deep is a trap as ever, also inside a `try_table`.
        for name in ["catch_direct", "catch_indirect", "catch_host"] {
            let trap = world.trap(instance, name, &[Val::I32(100_000_000)]);
            assert_eq!(trap.kind(), TrapKind::StackOverflow, "{name}");
        }
    }
}

#[test]
fn at_every_depth_a_throw_is_caught_or_the_stack_is_exhausted() {
    let config = StoreConfig { max_wasm_stack: 64 << 10, ..StoreConfig::default() };
    let mut world = World::with_config(config);
    nesting(&mut world);
    let instance = world.instance(DEEP);
    let mut exhausted = 0;
    for depth in 0..3000 {
        match world.call(instance, "catch_direct", &[Val::I32(depth)]) {
            Ok(results) => {
                assert!(matches!(results[..], [Val::I32(5)]));
                assert_eq!(exhausted, 0, "a deeper one has thrown");
            }
            Err(CallError::Trap(trap)) => {
                assert_eq!(trap.kind(), TrapKind::StackOverflow);
                exhausted += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(exhausted > 0 && exhausted < 3000, "{exhausted}");
}
