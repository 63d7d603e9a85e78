//! Garbage collection under compiled code: what can be reached survives a collection at every
//! allocation, wherever the reference lies; what cannot is reclaimed.

use coracle_engine::compile::compile;
use coracle_engine::config::{OptLevel, Settings};
use coracle_engine::runtime::{Instance, InstantiateError, Module, StoreConfig, TrapKind, Val};

use crate::World;

/// A function that makes garbage, and types that the tests share. Each object holds a number; the
/// garbage holds another one and lies where a freed object lay.
pub(crate) const COMMON: &str = r#"
    (type $box (struct (field $value (mut i32))))
    (type $node (struct (field $value (mut i32)) (field $next (mut (ref null $node)))))
    (type $bytes (array (mut i8)))
    (type $longs (array (mut i64)))
    (type $refs (array (mut (ref null $box))))
    (func $litter
        (local $n i32)
        (loop $again
            (drop (struct.new $box (i32.const -1)))
            (drop (struct.new $node (i32.const -1) (ref.null $node)))
            (drop (array.new $bytes (i32.const -1) (i32.const 50)))
            (drop (array.new $longs (i64.const -1) (i32.const 10)))
            (drop (array.new $refs (struct.new $box (i32.const -1)) (i32.const 10)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $n) (i32.const 5)))))
    (func $box (param i32) (result (ref $box)) (struct.new $box (local.get 0)))
    (func $unbox (param (ref null $box)) (result i32) (struct.get $box $value (local.get 0)))"#;

pub(crate) fn stress() -> StoreConfig {
    StoreConfig { gc_stress: true, ..StoreConfig::default() }
}

pub(crate) fn limited(bytes: u64) -> StoreConfig {
    StoreConfig { max_gc_heap_bytes: bytes, ..StoreConfig::default() }
}

pub(crate) fn instantiate(
    world: &mut World,
    opt_level: OptLevel,
    wat: &str,
) -> Result<Instance, InstantiateError> {
    let settings = Settings { verifier: true, opt_level, ..Settings::default() };
    let binary = wat::parse_str(format!("(module {COMMON} {wat})")).unwrap();
    let image = compile(&binary, &settings).unwrap();
    let module = Module::from_bytes(&world.engine, &image).unwrap();
    world.linker.instantiate(&mut world.store, &module)
}

/// Calls `run`, which must give `expected`, in code with and without optimisation, with and without
/// a collection at every allocation.
#[track_caller]
pub(crate) fn survives(wat: &str, expected: i32) {
    for opt_level in [OptLevel::Speed, OptLevel::None] {
        for config in [stress(), StoreConfig::default()] {
            let mut world = World::with_config(config);
            let instance = instantiate(&mut world, opt_level, wat).unwrap();
            let found = world.call_i32(instance, "run", &[]);
            assert_eq!(found, expected, "{opt_level:?}, stress: {}", config.gc_stress);
        }
    }
}

#[test]
fn objects_survive_in_locals_and_on_the_stack() {
    survives(
        r#"(func (export "run") (result i32)
            (local $a (ref null $box)) (local $b (ref null $box))
            (local.set $a (call $box (i32.const 1)))
            (local.set $b (call $box (i32.const 20)))
            (call $box (i32.const 300))
            (call $litter)
            (call $unbox)
            (call $litter)
            (i32.add (call $unbox (local.get $a)))
            (call $litter)
            (i32.add (call $unbox (local.get $b))))"#,
        321,
    );
}

#[test]
fn objects_survive_when_there_are_more_than_registers() {
    use std::fmt::Write;
    let mut body = String::from("(func (export \"run\") (result i32)\n");
    for n in 0..40 {
        write!(body, "(local $l{n} (ref null $box))").unwrap();
    }
    for n in 0..40 {
        write!(body, "(local.set $l{n} (call $box (i32.const {n})))").unwrap();
    }
    body.push_str("(call $litter) (i32.const 0)");
    for n in 0..40 {
        write!(body, "(i32.add (call $unbox (local.get $l{n}))) (call $litter)").unwrap();
    }
    body.push(')');
    survives(&body, (0..40).sum());
}

#[test]
fn objects_survive_in_every_frame_of_a_recursion() {
    survives(
        r#"(func $down (param $n i32) (result i32)
                (local $b (ref null $box))
                (if (i32.eqz (local.get $n)) (then (call $litter) (return (i32.const 0))))
                (local.set $b (call $box (local.get $n)))
                (i32.add (call $down (i32.sub (local.get $n) (i32.const 1)))
                         (call $unbox (local.get $b))))
            (func (export "run") (result i32) (call $down (i32.const 100)))"#,
        5050,
    );
}

#[test]
fn objects_survive_in_globals_and_tables() {
    survives(
        r#"(global $g (mut (ref null $box)) (ref.null $box))
            (global $x (mut externref) (ref.null extern))
            (table $t 2 (ref null $box))
            (table $x 1 externref)
            (func (export "run") (result i32)
                (global.set $g (call $box (i32.const 1)))
                (global.set $x (extern.convert_any (call $box (i32.const 20))))
                (table.set $t (i32.const 1) (call $box (i32.const 300)))
                (table.set $x (i32.const 0) (extern.convert_any (call $box (i32.const 4000))))
                (drop (table.grow $t (call $box (i32.const 50000)) (i32.const 1)))
                (call $litter)
                (call $unbox (global.get $g))
                (i32.add (call $unbox (ref.cast (ref $box) (any.convert_extern (global.get $x)))))
                (i32.add (call $unbox (table.get $t (i32.const 1))))
                (i32.add (call $unbox (ref.cast (ref $box)
                    (any.convert_extern (table.get $x (i32.const 0))))))
                (i32.add (call $unbox (table.get $t (i32.const 2)))))"#,
        54321,
    );
}

#[test]
fn objects_of_constant_expressions_survive() {
    survives(
        r#"(global $a (ref $box) (struct.new $box (i32.const 1)))
            (global $list (ref $node) (struct.new $node (i32.const 20)
                (struct.new $node (i32.const 300) (ref.null $node))))
            (global $array (ref $refs)
                (array.new_fixed $refs 2 (global.get $a) (struct.new $box (i32.const 4000))))
            (global $same (ref $refs) (array.new $refs (struct.new $box (i32.const 50000)) (i32.const 3)))
            (table $t 1 (ref $box) (struct.new $box (i32.const 600000)))
            (elem $e (ref $box) (struct.new $box (i32.const 7000000)))
            (func (export "run") (result i32)
                (call $litter)
                (call $unbox (array.get $refs (global.get $array) (i32.const 0)))
                (i32.add (struct.get $node $value (global.get $list)))
                (i32.add (struct.get $node $value (struct.get $node $next (global.get $list))))
                (i32.add (call $unbox (array.get $refs (global.get $array) (i32.const 1))))
                (i32.add (call $unbox (array.get $refs (global.get $same) (i32.const 2))))
                (i32.add (call $unbox (table.get $t (i32.const 0))))
                (i32.add (call $unbox
                    (array.get $refs (array.new_elem $refs $e (i32.const 0) (i32.const 1)) (i32.const 0)))))"#,
        7654321,
    );
}

#[test]
fn a_passive_segment_gives_the_same_object_each_time_and_nothing_once_dropped() {
    survives(
        r#"(table $t 2 (ref null $box))
            (elem $e (ref $box) (struct.new $box (i32.const 7)))
            (func (export "run") (result i32)
                (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))
                (call $litter)
                (table.init $t $e (i32.const 1) (i32.const 0) (i32.const 1))
                (elem.drop $e)
                (call $litter)
                (i32.add
                    (ref.eq (table.get $t (i32.const 0)) (table.get $t (i32.const 1)))
                    (call $unbox (table.get $t (i32.const 1)))))"#,
        8,
    );
}

#[test]
fn objects_survive_in_objects() {
    survives(
        r#"(type $mixed (struct (field i8) (field (ref $refs)) (field i16) (field funcref)
                (field (ref null $box)) (field f64)))
            (func (export "run") (result i32)
                (local $m (ref null $mixed))
                (local.set $m (struct.new $mixed (i32.const 1)
                    (array.new_fixed $refs 2 (call $box (i32.const 1)) (call $box (i32.const 20)))
                    (i32.const -1) (ref.null func) (call $box (i32.const 300)) (f64.const 1)))
                (call $litter)
                (array.set $refs (struct.get $mixed 1 (local.get $m)) (i32.const 0)
                    (call $box (i32.const 4000)))
                (call $litter)
                (call $unbox (array.get $refs (struct.get $mixed 1 (local.get $m)) (i32.const 0)))
                (i32.add (call $unbox (array.get $refs (struct.get $mixed 1 (local.get $m)) (i32.const 1))))
                (i32.add (call $unbox (struct.get $mixed 4 (local.get $m))))
                (i32.add (struct.get_s $mixed 0 (local.get $m))))"#,
        4321,
    );
}

#[test]
fn objects_survive_in_the_payload_of_exceptions() {
    survives(
        r#"(tag $t (param i32 (ref $box) externref))
            (global $kept (mut exnref) (ref.null exn))
            (func $throw (param $n i32)
                (throw $t (i32.const 1) (call $box (local.get $n))
                    (extern.convert_any (call $box (i32.const 300)))))
            (func $catch (param $n i32) (result exnref)
                (block $caught (result exnref)
                    (try_table (catch_all_ref $caught) (call $throw (local.get $n)))
                    (unreachable)))
            (func $sum (param $e exnref) (result i32)
                (local $x externref) (local $b (ref null $box)) (local $n i32)
                (block $caught (result i32 (ref $box) externref)
                    (try_table (catch $t $caught) (throw_ref (local.get $e)))
                    (unreachable))
                (call $litter)
                (local.set $x) (local.set $b) (local.set $n)
                (i32.add (local.get $n) (i32.add (call $unbox (local.get $b))
                    (call $unbox (ref.cast (ref $box) (any.convert_extern (local.get $x)))))))
            (func (export "run") (result i32)
                (local $e exnref)
                (global.set $kept (call $catch (i32.const 20)))
                (local.set $e (call $catch (i32.const 4000)))
                (call $litter)
                (i32.add (call $sum (global.get $kept)) (call $sum (local.get $e))))"#,
        321 + 4301,
    );
}

/// Between collections the code is free to keep the array's address, or an element's, in place of
/// the reference.
#[test]
fn an_array_survives_while_a_loop_works_on_its_elements() {
    survives(
        r#"(func $sum (param $a (ref $longs)) (result i64)
                (local $n i32) (local $sum i64)
                (loop $next
                    (array.set $longs (local.get $a) (local.get $n)
                        (i64.add (array.get $longs (local.get $a) (local.get $n)) (i64.const 1)))
                    (call $litter)
                    (local.set $sum (i64.add (local.get $sum)
                        (array.get $longs (local.get $a) (local.get $n))))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_if $next (i32.lt_u (local.get $n) (array.len (local.get $a)))))
                (local.get $sum))
            (func (export "run") (result i32)
                (i32.wrap_i64 (call $sum (array.new $longs (i64.const 9) (i32.const 100)))))"#,
        1000,
    );
}

#[test]
fn arrays_filled_copied_and_made_from_objects_keep_them() {
    survives(
        r#"(func (export "run") (result i32)
                (local $a (ref null $refs)) (local $b (ref null $refs))
                (local.set $a (array.new_default $refs (i32.const 10)))
                (array.fill $refs (local.get $a) (i32.const 2) (call $box (i32.const 3)) (i32.const 5))
                (call $litter)
                (local.set $b (array.new $refs (array.get $refs (local.get $a) (i32.const 4)) (i32.const 10)))
                (local.set $a (ref.null $refs))
                (call $litter)
                (local.set $a (array.new_default $refs (i32.const 5)))
                (array.copy $refs $refs (local.get $a) (i32.const 1) (local.get $b) (i32.const 7) (i32.const 3))
                (local.set $b (ref.null $refs))
                (call $litter)
                (i32.add (call $unbox (array.get $refs (local.get $a) (i32.const 3)))
                    (ref.is_null (array.get $refs (local.get $a) (i32.const 4)))))"#,
        4,
    );
}

#[test]
fn a_long_list_is_marked_without_recursion() {
    let mut world = World::new();
    let wat = r#"(global $list (mut (ref null $node)) (ref.null $node))
        (func (export "build") (param $n i32)
            (loop $more
                (global.set $list (struct.new $node (i32.const 1) (global.get $list)))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br_if $more (local.get $n))))
        (func (export "drop") (global.set $list (ref.null $node)))
        (func (export "sum") (result i32)
            (local $l (ref null $node)) (local $sum i32)
            (local.set $l (global.get $list))
            (loop $next
                (if (ref.is_null (local.get $l)) (then (return (local.get $sum))))
                (local.set $sum (i32.add (local.get $sum) (struct.get $node $value (local.get $l))))
                (local.set $l (struct.get $node $next (local.get $l)))
                (br $next))
            (unreachable))"#;
    let instance = instantiate(&mut world, OptLevel::Speed, wat).unwrap();
    world.call(instance, "build", &[Val::I32(3_000_000)]).unwrap();
    world.store.gc();
    assert_eq!(world.call_i32(instance, "sum", &[]), 3_000_000);
    assert!(world.store.gc_heap_bytes() >= 3_000_000 * 16);
    world.call(instance, "drop", &[]).unwrap();
    world.store.gc();
    assert_eq!(world.store.gc_heap_bytes(), 0);
}

#[test]
fn an_allocation_loop_runs_in_a_bounded_heap() {
    let mut world = World::with_config(limited(1 << 20));
    let wat = r#"(func (export "run") (param $n i32) (result i32)
            (local $keep (ref null $node))
            (local.set $keep (struct.new $node (i32.const 5) (ref.null $node)))
            (loop $more
                (drop (struct.new $node (i32.const 1) (local.get $keep)))
                (drop (array.new_default $bytes (i32.const 100)))
                (drop (array.new_default $bytes (i32.const 5000)))
                (drop (array.new_default $bytes (i32.const 100000)))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br_if $more (local.get $n)))
            (struct.get $node $value (local.get $keep)))"#;
    let instance = instantiate(&mut world, OptLevel::Speed, wat).unwrap();
    assert_eq!(world.call_i32(instance, "run", &[Val::I32(20_000)]), 5);
    assert!(world.store.gc_heap_bytes() <= 1 << 20);
}

#[test]
fn no_room_is_a_trap_and_the_guest_goes_on() {
    let mut world = World::with_config(limited(1 << 20));
    let wat = r#"(global $list (mut (ref null $node)) (ref.null $node))
        (func (export "exhaust")
            (loop $more
                (global.set $list (struct.new $node (i32.const 1) (global.get $list)))
                (br $more)))
        (func (export "drop") (global.set $list (ref.null $node)))
        (func (export "one") (result i32) (call $unbox (call $box (i32.const 1))))"#;
    let instance = instantiate(&mut world, OptLevel::Speed, wat).unwrap();
    let trap = world.trap(instance, "exhaust", &[]);
    assert_eq!(trap.kind(), TrapKind::OutOfMemory);
    assert_eq!(world.trap(instance, "one", &[]).kind(), TrapKind::OutOfMemory);
    world.call(instance, "drop", &[]).unwrap();
    assert_eq!(world.call_i32(instance, "one", &[]), 1);
}
