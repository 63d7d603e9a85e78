//! Exceptions within guests: who catches them, what they carry, what must not be caught.

use coracle_engine::runtime::{CallError, Caller, ExternRef, TrapKind, Val};

use crate::{World, names};

#[test]
fn clauses_are_tried_in_order_from_the_inside_out() {
    // Thrown directly, by a callee, by a callee's callee, and by one that was tail called.
    let throw = |tag: &str, how: &str| match how {
        "direct" => format!("(throw {tag})"),
        how => format!("(call {how}-{})", &tag[1..]),
    };
    for how in ["direct", "$callee", "$deep", "$tail"] {
        let case = |name: &str, tag: &str| {
            format!(
                r#"(func (export "{name}") (result i32)
                    (block $outer-all (block $outer-a (block $inner-b (block $inner-a
                        (try_table (catch $a $outer-a) (catch_all $outer-all)
                            (try_table (catch $b $inner-b) (catch $a $inner-a) (catch $b $outer-all)
                                {})
                            unreachable))
                        (return (i32.const 1)))
                        (return (i32.const 2)))
                        (return (i32.const 3)))
                    (i32.const 4))"#,
                throw(tag, how)
            )
        };
        let helpers: String = ["a", "b", "c"]
            .iter()
            .map(|tag| {
                format!(
                    "(func $callee-{tag} (throw ${tag}))
                     (func $deep-{tag} (call $callee-{tag}))
                     (func $tail-{tag} (return_call $callee-{tag}))"
                )
            })
            .collect();
        let mut world = World::new();
        let instance = world.instance(&format!(
            "(module (tag $a) (tag $b) (tag $c) {helpers} {} {} {})",
            case("a", "$a"),
            case("b", "$b"),
            case("c", "$c")
        ));
        for (name, expected) in [("a", 1), ("b", 2), ("c", 4)] {
            assert_eq!(world.call_i32(instance, name, &[]), expected, "{name} thrown {how}");
        }
    }
}

#[test]
fn values_of_every_kind_arrive_unchanged() {
    for mut world in [World::new(), World::stressed()] {
        let instance = world.instance(
            r#"(module
                (type $f (func (result i32)))
                (tag $all (export "all") (param i32 i64 f32 f64 funcref externref exnref i32))
                (tag $inner (param i64))
                (func $seven (type $f) (i32.const 7))
                (elem declare func $seven)
                (func $throw (param externref)
                    (throw $all (i32.const -1) (i64.const 0x123456789abcdef0) (f32.const 1.5)
                        (f64.const -2.5) (ref.func $seven) (local.get 0)
                        (block $inner-exception (result exnref)
                            (try_table (catch_all_ref $inner-exception)
                                (throw $inner (i64.const 99)))
                            unreachable)
                        (i32.const 42)))
                (table 1 funcref)
                (func (export "f") (param externref)
                    (result i32 i64 f32 f64 i32 externref i64 i32)
                    (local i32 i64 f32 f64 funcref externref exnref i32)
                    (block $caught (result i32 i64 f32 f64 funcref externref exnref i32)
                        (try_table (catch $all $caught) (call $throw (local.get 0)))
                        unreachable)
                    (local.set 8) (local.set 7) (local.set 6) (local.set 5) (local.set 4)
                    (local.set 3) (local.set 2) (local.set 1)
                    (table.set (i32.const 0) (local.get 5))
                    (local.get 1) (local.get 2) (local.get 3) (local.get 4)
                    (call_indirect (type $f) (i32.const 0))
                    (local.get 6)
                    (block $value (result i64)
                        (try_table (catch $inner $value) (throw_ref (local.get 7)))
                        unreachable)
                    (local.get 8))
                (func (export "uncaught") (param externref) (call $throw (local.get 0))))"#,
        );
        let reference = Val::ExternRef(ExternRef::new(5));
        let results = world.call(instance, "f", &[reference]).unwrap();
        let [
            Val::I32(-1),
            Val::I64(0x1234_5678_9abc_def0),
            Val::F32(1.5),
            Val::F64(-2.5),
            Val::I32(7),
            Val::ExternRef(handle),
            Val::I64(99),
            Val::I32(42),
        ] = results[..]
        else {
            panic!("{results:?}")
        };
        assert_eq!(handle, ExternRef::new(5));

        let exception = world.exception(instance, "uncaught", &[reference]);
        assert_eq!(Some(exception.tag()), instance.tag(&world.store, "all"));
        let values = exception.values(&world.store);
        let [
            Val::I32(-1),
            Val::I64(_),
            Val::F32(1.5),
            Val::F64(-2.5),
            Val::FuncRef(Some(seven)),
            Val::ExternRef(handle),
            Val::ExnRef(Some(_)),
            Val::I32(42),
        ] = values[..]
        else {
            panic!("{values:?}")
        };
        assert_eq!(handle, ExternRef::new(5));
        let mut results = Vec::new();
        seven.call(&mut world.store, &[], &mut results).unwrap();
        assert!(matches!(results[..], [Val::I32(7)]));
    }
}

#[test]
fn many_values_and_calls_with_much_on_the_stack() {
    let mut world = World::new();
    let count = 60;
    let types = "i64 ".repeat(count);
    let args: String = (0..count).map(|n| format!("(i64.const {n})")).collect();
    let gets: String = (0..count).map(|n| format!("(local.get {n})")).collect();
    let adds = "i64.add ".repeat(count - 1);
    let instance = world.instance(&format!(
        r#"(module
            (tag $t (param {types}))
            (func $results (param {types}) (result {types}) {gets})
            (func $throw (param {types}) (result {types}) (throw $t {gets}))
            (func (export "f") (param i64) (result i64) (local $sum i64)
                (loop $again
                    ;; Results in memory, from inside a try_table that catches nothing.
                    (block $never (result {types})
                        (try_table (result {types}) (catch $t $never) (call $results {args})))
                    {adds}
                    (local.set $sum (i64.add (local.get $sum)))
                    (block $caught (result {types})
                        (try_table (result {types}) (catch $t $caught) (call $throw {args}))
                        unreachable)
                    {adds}
                    (local.set $sum (i64.add (local.get $sum)))
                    (br_if $again (i32.wrap_i64 (local.tee 0 (i64.sub (local.get 0) (i64.const 1))))))
                (local.get $sum)))"#
    ));
    let once = (count * (count - 1)) as i64;
    let results = world.call(instance, "f", &[Val::I64(1000)]).unwrap();
    assert!(matches!(results[..], [Val::I64(sum)] if sum == 1000 * once), "{results:?}");
}

#[test]
fn locals_keep_what_they_held_at_the_call() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module
            (tag $t)
            (func $throw_at (param i32 i32)
                (if (i32.eq (local.get 0) (local.get 1)) (then (throw $t))))
            (func (export "f") (param $at i32) (result i32)
                (local $n i32) (local $a i64) (local $b f64) (local $c i32)
                (block $caught
                    (try_table (catch_all $caught)
                        (loop $again
                            (local.set $a (i64.add (local.get $a) (i64.const 3)))
                            (local.set $b (f64.add (local.get $b) (f64.const 0.5)))
                            (local.set $c (i32.xor (local.get $c) (local.get $n)))
                            (call $throw_at (local.get $n) (local.get $at))
                            (local.set $n (i32.add (local.get $n) (i32.const 1)))
                            (br $again))))
                (i32.add (i32.add (local.get $n) (i32.wrap_i64 (local.get $a)))
                    (i32.add (i32.trunc_f64_s (local.get $b)) (local.get $c)))))"#,
    );
    for at in [0, 1, 9, 1000] {
        let xor = (0..=at).fold(0, |a, b| a ^ b);
        let expected = at + 3 * (at + 1) + (at + 1) / 2 + xor;
        assert_eq!(world.call_i32(instance, "f", &[Val::I32(at)]), expected);
    }
}

#[test]
fn an_exception_thrown_again_is_the_same() {
    for mut world in [World::new(), World::stressed()] {
        let instance = world.instance(
            r#"(module
                (tag $t (export "t") (param i32))
                (global $kept (mut exnref) (ref.null exn))
                (table $table 2 exnref)
                (func $throw (param i32) (throw $t (local.get 0)))
                (func $keep (export "keep") (param i32)
                    (block $caught (result i32 exnref)
                        (try_table (catch_ref $t $caught) (call $throw (local.get 0)))
                        unreachable)
                    (global.set $kept)
                    drop
                    (table.set $table (i32.const 1) (global.get $kept)))
                (func (export "again") (throw_ref (global.get $kept)))
                (func (export "from_table") (throw_ref (table.get $table (i32.const 1))))
                (func (export "null") (throw_ref (table.get $table (i32.const 0))))
                (func $relay (param i32)
                    ;; As a clean-up would: catch whatever comes, throw it on.
                    (block $caught (result exnref)
                        (try_table (catch_all_ref $caught) (call $throw (local.get 0)))
                        unreachable)
                    throw_ref)
                (func (export "relay") (param i32) (result i32)
                    (block $caught (result i32)
                        (try_table (catch $t $caught) (call $relay (local.get 0)))
                        unreachable)))"#,
        );
        assert_eq!(world.call_i32(instance, "relay", &[Val::I32(3)]), 3);
        world.call(instance, "keep", &[Val::I32(17)]).unwrap();
        for n in 0..20 {
            assert_eq!(world.call_i32(instance, "relay", &[Val::I32(n)]), n);
        }
        for name in ["again", "from_table", "again"] {
            let exception = world.exception(instance, name, &[]);
            assert!(matches!(exception.values(&world.store)[..], [Val::I32(17)]), "{name}");
            assert_eq!(exception.backtrace().len(), 1, "where it was thrown last");
        }
        let trap = world.trap(instance, "null", &[]);
        assert_eq!((trap.kind(), names(&trap)), (TrapKind::NullReference, vec!["null"]));
    }
}

#[test]
fn traps_are_not_caught() {
    let mut world = World::new();
    world.linker.func_wrap("h", "fail", |_: Caller<'_>| -> Result<(), std::fmt::Error> {
        Err(std::fmt::Error)
    });
    let instance = world.instance(
        r#"(module
            (import "h" "fail" (func $fail))
            (memory 1) (table 1 funcref)
            (func $unreachable unreachable)
            (func $load (drop (i32.load (i32.const -1))))
            (func $divide (drop (i32.div_u (i32.const 1) (i32.const 0))))
            (func $null (call_indirect (i32.const 0)))
            (func $endless (call $endless) (call $endless))
            (func $fill (memory.fill (i32.const 65536) (i32.const 0) (i32.const 1)))
            (table $t funcref (elem $unreachable $load $divide $null $endless $fill $fail))
            (func (export "f") (param i32) (result i32)
                (block $caught
                    (try_table (catch_all $caught) (call_indirect $t (local.get 0)))
                    (return (i32.const 1)))
                (i32.const 2))
            (func (export "here") (result i32)
                (block $caught
                    (try_table (catch_all $caught) unreachable)
                    (return (i32.const 1)))
                (i32.const 2)))"#,
    );
    for (n, kind) in [
        (0, TrapKind::Unreachable),
        (1, TrapKind::MemoryOutOfBounds),
        (2, TrapKind::IntegerDivideByZero),
        (3, TrapKind::UninitializedElement),
        (4, TrapKind::StackOverflow),
        (5, TrapKind::MemoryOutOfBounds),
    ] {
        assert_eq!(world.trap(instance, "f", &[Val::I32(n)]).kind(), kind);
    }
    let result = world.call(instance, "f", &[Val::I32(6)]);
    assert!(matches!(result, Err(CallError::Host(_))), "{result:?}");
    assert_eq!(world.trap(instance, "here", &[]).kind(), TrapKind::Unreachable);
}

#[test]
fn a_tail_call_leaves_the_clauses_around_it() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module
            (tag $t)
            (func $throw (result i32) (throw $t))
            (func $leaves (result i32)
                (block $caught
                    (try_table (catch_all $caught) (return_call $throw)))
                (i32.const 1))
            (func (export "f") (result i32)
                (block $caught
                    (try_table (catch $t $caught) (return (call $leaves))))
                (i32.const 2))
            (func (export "uncaught") (result i32) (return_call $leaves)))"#,
    );
    assert_eq!(world.call_i32(instance, "f", &[]), 2);
    let exception = world.exception(instance, "uncaught", &[]);
    assert_eq!(exception.backtrace().len(), 1, "{exception}");
}

#[test]
fn clauses_behind_a_loop_and_in_dead_code_translate() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module
            (tag $t (param i32))
            (func $throw (param i32) (throw $t (local.get 0)))
            ;; A label that is a loop: the exception's value is the next one to throw.
            (func (export "countdown") (param i32) (result i32) (local $rounds i32)
                (local.get 0)
                (loop $again (param i32)
                    (local.set 0)
                    (if (i32.eqz (local.get 0)) (then (return (local.get $rounds))))
                    (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
                    (try_table (catch $t $again)
                        (call $throw (i32.sub (local.get 0) (i32.const 1))))
                    unreachable)
                unreachable)
            ;; The function's own label.
            (func (export "body") (param i32) (result i32)
                (try_table (catch $t 0) (call $throw (local.get 0)))
                (i32.const 0))
            (func (export "dead") (result i32)
                (block $b (result i32)
                    (try_table (result i32) (catch $t $b)
                        (br $b (i32.const 3))
                        (try_table (catch $t $b) (call $throw (i32.const 1)))
                        (throw $t (i32.const 2)))))
            (func (export "params") (param i32) (result i32)
                (block $b (result i32)
                    (local.get 0) (i32.const 5)
                    (try_table (param i32 i32) (result i32) (catch $t $b) i32.mul
                        (if (param i32) (result i32) (i32.eq (local.get 0) (i32.const 2))
                            (then (call $throw) (i32.const 0)))))))"#,
    );
    assert_eq!(world.call_i32(instance, "countdown", &[Val::I32(25)]), 25);
    assert_eq!(world.call_i32(instance, "body", &[Val::I32(9)]), 9);
    assert_eq!(world.call_i32(instance, "dead", &[]), 3);
    assert_eq!(world.call_i32(instance, "params", &[Val::I32(2)]), 10);
    assert_eq!(world.call_i32(instance, "params", &[Val::I32(3)]), 15);
}

#[test]
fn vectors_and_objects_arrive_and_objects_stay_alive() {
    for mut world in [World::new(), World::stressed()] {
        let instance = world.instance(
            r#"(module
                (type $pair (struct (field i32) (field (ref null $pair))))
                (type $bytes (array (mut i8)))
                (type $throws (func (param i32)))
                (tag $t (export "t") (param v128 (ref $pair) i31ref (ref null $bytes) v128))
                (func $throw (type $throws)
                    (throw $t (v128.const i64x2 0x1122334455667788 0x99aabbccddeeff00)
                        (struct.new $pair (local.get 0)
                            (struct.new $pair (i32.const 20) (ref.null $pair)))
                        (ref.i31 (i32.const 300))
                        (array.new $bytes (i32.const 4) (i32.const 10))
                        (v128.const i32x4 1 2 3 4)))
                (elem declare func $throw)
                (func (export "f") (param i32) (result i32 v128)
                    (local $first v128) (local $last v128) (local $sum i32)
                    (local $bytes (ref null $bytes)) (local $pair (ref null $pair))
                    (block $caught (result v128 (ref $pair) i31ref (ref null $bytes) v128)
                        (try_table (catch $t $caught)
                            (call_ref $throws (local.get 0) (ref.func $throw)))
                        unreachable)
                    (local.set $last)
                    (local.set $bytes)
                    (i31.get_s)
                    (local.set $sum)
                    (local.set $pair)
                    (local.set $first)
                    ;; Every allocation may collect what only the exception referred to.
                    (drop (array.new $bytes (i32.const 9) (i32.const 10)))
                    (local.set $sum (i32.add (local.get $sum)
                        (i32.mul (array.len (local.get $bytes))
                            (array.get_u $bytes (local.get $bytes) (i32.const 9)))))
                    (local.set $sum (i32.add (local.get $sum)
                        (struct.get $pair 0 (struct.get $pair 1 (local.get $pair)))))
                    (i32.add (local.get $sum) (struct.get $pair 0 (local.get $pair)))
                    (v128.xor (local.get $first) (local.get $last)))
                (func (export "again") (result i32) (local $exception exnref)
                    (block $caught (result v128 (ref $pair) i31ref (ref null $bytes) v128 exnref)
                        (try_table (catch_ref $t $caught) (call $throw (i32.const 5)))
                        unreachable)
                    (local.set $exception)
                    drop drop drop drop drop
                    (drop (array.new $bytes (i32.const 9) (i32.const 10)))
                    (block $again (result v128 (ref $pair) i31ref (ref null $bytes) v128)
                        (try_table (catch $t $again) (throw_ref (local.get $exception)))
                        unreachable)
                    drop drop drop
                    (struct.get $pair 0 (struct.get $pair 1))
                    (return))
                (func (export "uncaught") (call $throw (i32.const 1))))"#,
        );
        let results = world.call(instance, "f", &[Val::I32(7)]).unwrap();
        let vector = 0x99aa_bbcc_ddee_ff00_1122_3344_5566_7788u128
            ^ 0x0000_0004_0000_0003_0000_0002_0000_0001;
        let [Val::I32(sum), Val::V128(found)] = results[..] else { panic!("{results:?}") };
        assert_eq!((sum, found), (300 + 40 + 20 + 7, vector));
        assert_eq!(world.call_i32(instance, "again", &[]), 20);
        let exception = world.exception(instance, "uncaught", &[]);
        let values = exception.values(&world.store);
        assert!(matches!(values[..], [Val::V128(_), _, _, _, Val::V128(_)]), "{values:?}");
        let text = exception.to_string();
        assert!(text.contains("v128 0x99aabbccddeeff001122334455667788, reference"), "{text}");
    }
}
