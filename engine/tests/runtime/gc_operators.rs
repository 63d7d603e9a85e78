//! Operators on objects: limits, traps, values of every width, casts.

use coracle_engine::config::OptLevel;
use coracle_engine::runtime::{CallError, InstantiateError, TrapKind, Val};

use crate::World;
use crate::gc::{instantiate, limited, survives};

#[test]
fn hostile_lengths_trap_before_any_memory_is_touched() {
    let mut world = World::with_config(limited(1 << 30));
    let wat = r#"(data $d "12345678") (elem $e (ref null $box) (ref.null $box))
        (func (export "bytes") (param i32) (drop (array.new $bytes (i32.const 1) (local.get 0))))
        (func (export "default") (param i32) (drop (array.new_default $longs (local.get 0))))
        (func (export "refs") (param i32) (drop (array.new $refs (ref.null $box) (local.get 0))))
        (func (export "data") (param i32)
            (drop (array.new_data $longs $d (i32.const 0) (local.get 0))))
        (func (export "elem") (param i32)
            (drop (array.new_elem $refs $e (i32.const 0) (local.get 0))))"#;
    let instance = instantiate(&mut world, OptLevel::Speed, wat).unwrap();
    for (name, kind) in [
        ("bytes", TrapKind::OutOfMemory),
        ("default", TrapKind::OutOfMemory),
        ("refs", TrapKind::OutOfMemory),
        ("data", TrapKind::MemoryOutOfBounds),
        ("elem", TrapKind::TableOutOfBounds),
    ] {
        for length in [u32::MAX, 1 << 31, u32::MAX - 11] {
            let trap = world.trap(instance, name, &[Val::I32(length as i32)]);
            assert_eq!(trap.kind(), kind, "{name} {length}");
        }
    }
    assert_eq!(world.store.gc_heap_bytes(), 0);
}

#[test]
fn a_constant_expression_without_room_fails_the_instantiation() {
    let mut world = World::with_config(limited(1 << 20));
    let wat = "(global $g (ref $bytes) (array.new_default $bytes (i32.const 10000000)))";
    match instantiate(&mut world, OptLevel::Speed, wat) {
        Err(InstantiateError::Failed(CallError::Trap(trap))) => {
            assert_eq!(trap.kind(), TrapKind::OutOfMemory);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_of_every_width_are_kept_whole() {
    survives(
        r#"(type $wide (array (mut v128))) (type $funcs (array (mut funcref)))
            (type $floats (array (mut f32))) (type $shorts (array (mut i16)))
            (type $all (struct (field i8) (field v128) (field f32) (field funcref) (field i16) (field f64)))
            (func $one (result i32) (i32.const 1)) (elem $e funcref (ref.null func) (ref.func $one))
            (type $get (func (result i32)))
            (func (export "run") (result i32)
                (local $w (ref null $wide)) (local $a (ref null $all)) (local $f (ref null $funcs))
                (local $s (ref null $shorts)) (local $sum i32)
                (local.set $w (array.new $wide (v128.const i32x4 1 2 3 4) (i32.const 5)))
                (array.fill $wide (local.get $w) (i32.const 2) (v128.const i32x4 5 6 7 8) (i32.const 2))
                (local.set $f (array.new_elem $funcs $e (i32.const 0) (i32.const 2)))
                (local.set $s (array.new $shorts (i32.const 0x18000) (i32.const 3)))
                (local.set $a (struct.new $all (i32.const -1) (array.get $wide (local.get $w) (i32.const 3))
                    (f32.const 1.5) (array.get $funcs (local.get $f) (i32.const 1))
                    (array.get_u $shorts (local.get $s) (i32.const 2)) (f64.const 2.5)))
                (call $litter)
                (local.set $sum (i32x4.extract_lane 3 (struct.get $all 1 (local.get $a))))
                (local.set $sum (i32.add (local.get $sum)
                    (i32x4.extract_lane 0 (array.get $wide (local.get $w) (i32.const 4)))))
                (local.set $sum (i32.add (local.get $sum)
                    (call_ref $get (ref.cast (ref $get) (struct.get $all 3 (local.get $a))))))
                (local.set $sum (i32.add (local.get $sum) (struct.get_s $all 4 (local.get $a))))
                (local.set $sum (i32.add (local.get $sum) (struct.get_u $all 0 (local.get $a))))
                (local.set $sum (i32.add (local.get $sum) (i32.trunc_f64_s (f64.add
                    (struct.get $all 5 (local.get $a)) (f64.promote_f32 (struct.get $all 2 (local.get $a)))))))
                (i32.add (local.get $sum) (i32.trunc_f32_s
                    (array.get $floats (array.new $floats (f32.const 9.5) (i32.const 2)) (i32.const 1)))))"#,
        8 + 1 + 1 - 0x8000 + 0xff + 4 + 9,
    );
}

#[test]
fn null_and_bounds_trap_by_their_names() {
    let mut world = World::new();
    let wat = r#"(func (export "get") (drop (struct.get $box $value (ref.null $box))))
        (func (export "set") (struct.set $node $next (ref.null $node) (ref.null $node)))
        (func (export "len") (drop (array.len (ref.null $longs))))
        (func (export "abstract") (drop (array.len (ref.null array))))
        (func (export "element") (drop (array.get $longs (ref.null $longs) (i32.const -1))))
        (func (export "i31") (drop (i31.get_s (ref.null i31))))
        (func (export "cast") (drop (ref.cast (ref $node) (struct.new $box (i32.const 1)))))
        (func (export "cast null") (drop (ref.cast (ref $node) (ref.null any))))
        (func (export "outside")
            (drop (array.get $longs (array.new_default $longs (i32.const 3)) (i32.const 3))))
        (func (export "fill null")
            (array.fill $longs (ref.null $longs) (i32.const 0) (i64.const 0) (i32.const 0)))"#;
    let instance = instantiate(&mut world, OptLevel::Speed, wat).unwrap();
    for (name, kind) in [
        ("get", TrapKind::NullStruct),
        ("set", TrapKind::NullStruct),
        ("len", TrapKind::NullArray),
        ("abstract", TrapKind::NullArray),
        ("element", TrapKind::NullArray),
        ("i31", TrapKind::NullI31),
        ("cast", TrapKind::CastFailure),
        ("cast null", TrapKind::CastFailure),
        ("outside", TrapKind::ArrayOutOfBounds),
        ("fill null", TrapKind::NullArray),
    ] {
        let trap = world.trap(instance, name, &[]);
        assert_eq!(trap.kind(), kind, "{name}");
        assert!(!trap.backtrace().is_empty(), "{name}");
    }
}

#[test]
fn bulk_operations_out_of_bounds_change_nothing() {
    let mut world = World::new();
    let wat = r#"(data $d "abcdefgh") (global $a (mut (ref null $bytes)) (ref.null $bytes))
        (func (export "new") (global.set $a (array.new $bytes (i32.const 1) (i32.const 4))))
        (func (export "fill") (array.fill $bytes (global.get $a) (i32.const 2) (i32.const 9) (i32.const 3)))
        (func (export "copy")
            (array.copy $bytes $bytes (global.get $a) (i32.const 0)
                (array.new $bytes (i32.const 9) (i32.const 2)) (i32.const 0) (i32.const 3)))
        (func (export "data") (array.init_data $bytes $d (global.get $a) (i32.const 0) (i32.const 5) (i32.const 4)))
        (func (export "wraps") (array.fill $bytes (global.get $a) (i32.const -1) (i32.const 9) (i32.const 2)))
        (func (export "check") (result i32)
            (i32.add
                (i32.add (array.get_u $bytes (global.get $a) (i32.const 0))
                    (array.get_u $bytes (global.get $a) (i32.const 1)))
                (i32.add (array.get_u $bytes (global.get $a) (i32.const 2))
                    (array.get_u $bytes (global.get $a) (i32.const 3)))))"#;
    let instance = instantiate(&mut world, OptLevel::Speed, wat).unwrap();
    world.call(instance, "new", &[]).unwrap();
    for (name, kind) in [
        ("fill", TrapKind::ArrayOutOfBounds),
        ("copy", TrapKind::ArrayOutOfBounds),
        ("data", TrapKind::MemoryOutOfBounds),
        ("wraps", TrapKind::ArrayOutOfBounds),
    ] {
        assert_eq!(world.trap(instance, name, &[]).kind(), kind, "{name}");
        assert_eq!(world.call_i32(instance, "check", &[]), 4, "{name}");
    }
}

/// Casts to types of every depth, those beyond a row of the table of supertypes among them.
#[test]
fn casts_tell_deep_types_apart() {
    use std::fmt::Write;
    let mut wat = String::new();
    for n in 0..20 {
        let above = if n == 0 { String::new() } else { format!("$t{}", n - 1) };
        write!(wat, "(type $t{n} (sub {above} (struct)))").unwrap();
        // A sibling of the same depth.
        write!(wat, "(type $s{n} (sub {above} (struct (field i32))))").unwrap();
    }
    wat.push_str("(func $make (param i32) (result anyref)");
    for n in 0..20 {
        write!(
            wat,
            "(if (i32.eq (local.get 0) (i32.const {n})) (then (return (struct.new $t{n}))))"
        )
        .unwrap();
        write!(
            wat,
            "(if (i32.eq (local.get 0) (i32.const {})) (then (return (struct.new $s{n} (i32.const 0)))))",
            n + 20
        )
        .unwrap();
    }
    wat.push_str("(ref.null any))");
    for n in 0..20 {
        write!(
            wat,
            "(func (export \"t{n}\") (param i32) (result i32) (ref.test (ref $t{n}) (call $make (local.get 0))))"
        )
        .unwrap();
    }
    let mut world = World::new();
    let instance = instantiate(&mut world, OptLevel::Speed, &wat).unwrap();
    for expected in 0..20 {
        for found in 0..40 {
            let name = format!("t{expected}");
            let is = world.call_i32(instance, &name, &[Val::I32(found)]);
            // `$t9` and `$s10` are below `$t9`; `$s9` is beside it.
            let below = if found < 20 { found >= expected } else { found - 20 > expected };
            assert_eq!(is != 0, below, "{found} against {expected}");
        }
    }
}

#[test]
fn an_instance_casts_objects_of_types_that_came_later() {
    let mut world = World::new();
    let base = r#"(type $base (sub (struct (field i32))))"#;
    let tester = format!(
        r#"{base} (type $low (sub $base (struct (field i32) (field i64))))
        (table $t (export "t") 1 anyref)
        (func (export "is base") (result i32) (ref.test (ref $base) (table.get $t (i32.const 0))))
        (func (export "is low") (result i32) (ref.test (ref $low) (table.get $t (i32.const 0))))"#
    );
    let first = instantiate(&mut world, OptLevel::Speed, &tester).unwrap();
    let table = first.table(&world.store, "t").unwrap();
    for n in 0..200 {
        // A new type each time: the table of supertypes grows and moves.
        let fields = "(field f32)".repeat(n);
        let wat = format!(
            r#"{base} (type $new (sub $base (struct (field i32) {fields})))
            (func (export "make") (result anyref) (struct.new_default $new))"#
        );
        let later = instantiate(&mut world, OptLevel::None, &wat).unwrap();
        let object = world.call(later, "make", &[]).unwrap()[0];
        table.set(&mut world.store, 0, object).unwrap();
        assert_eq!(world.call_i32(first, "is base", &[]), 1, "{n}");
        assert_eq!(world.call_i32(first, "is low", &[]), 0, "{n}");
    }
}
