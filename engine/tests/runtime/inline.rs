//! Bodies in place of calls do what the calls do.

use coracle_engine::compile::compile;
use coracle_engine::config::{OptLevel, Settings};
use coracle_engine::runtime::{Module, Val};

use crate::World;

const MODULE: &str = r#"(module (memory 1) (global $g (mut i32) (i32.const 5))
    ;; Locals begin as zero each time, also inside a loop.
    (func $fresh (param i32) (result i32) (local i32 i32)
        (local.set 1 (i32.add (local.get 1) (local.get 0)))
        (local.set 2 (i32.add (local.get 2) (local.get 1)))
        (i32.add (local.get 1) (local.get 2)))
    (func (export "locals") (param i32) (result i32) (local i32)
        (loop $again
            (local.set 1 (i32.add (local.get 1) (call $fresh (local.get 0))))
            (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
        (local.get 1))
    ;; Returns from inside blocks and loops, with values left on the stack.
    (func $early (param i32) (result i32)
        (i32.const 77)
        (block (result i32)
            (loop $l
                (if (i32.gt_u (local.get 0) (i32.const 100)) (then (return (i32.const 1))))
                (if (i32.eqz (local.get 0)) (then (return (i32.const 2))))
                (local.set 0 (i32.sub (local.get 0) (i32.const 3)))
                (br_if $l (i32.lt_u (local.get 0) (i32.const 50))))
            (br 0 (i32.add (local.get 0) (i32.const 1000))))
        (br 0 (i32.add)))
    (func (export "returns") (param i32) (result i32)
        (i32.add (i32.const 10) (call $early (local.get 0))))
    ;; Several results, arguments in order, branches to the body itself by a table.
    (func $pair (param i32 i64) (result i64 i32)
        (block (block (br_table 0 1 (local.get 0)))
            (return (i64.const 30) (i32.const 40)))
        (br_table 0 0 (i64.const 50) (i32.const 60) (local.get 0)))
    (func (export "pairs") (param i32) (result i64) (local i32)
        (call $pair (local.get 0) (i64.const 9))
        (local.set 1)
        (i64.mul (i64.extend_i32_u (local.get 1))))
    ;; Bodies that never get to their end.
    (func $stop (param i32) (result i32)
        (if (local.get 0) (then (global.set $g (local.get 0)))) unreachable)
    (func $maybe (param i32) (result i32)
        (if (result i32) (i32.lt_s (local.get 0) (i32.const 0))
            (then (call $stop (local.get 0))) (else (local.get 0))))
    (func (export "stops") (param i32) (result i32) (call $maybe (local.get 0)))
    (func (export "global") (param i32) (result i32) (global.get $g))
    ;; Three deep, used twice by the same caller, once under a condition.
    (func $a (param i32) (result i32) (i32.xor (local.get 0) (i32.const 0x55)))
    (func $b (param i32) (result i32) (i32.add (call $a (local.get 0)) (call $a (i32.const 1))))
    (func $c (param i32) (result i32)
        (if (i32.and (local.get 0) (i32.const 1)) (then (return (call $b (local.get 0)))))
        (call $a (call $b (i32.shl (local.get 0) (i32.const 1)))))
    (func (export "deep") (param i32) (result i32)
        (i32.sub (call $c (local.get 0)) (call $c (i32.add (local.get 0) (i32.const 1)))))
    ;; An exception through two bodies into a clause of the caller.
    (tag $t (param i32))
    (func $throws (param i32) (result i32)
        (if (i32.gt_s (local.get 0) (i32.const 3)) (then (throw $t (local.get 0))))
        (i32.const -1))
    (func $passes (param i32) (result i32) (i32.sub (call $throws (local.get 0)) (i32.const 1)))
    (func (export "catches") (param i32) (result i32)
        (block $caught (result i32)
            (return (try_table (result i32) (catch $t $caught) (call $passes (local.get 0)))))))"#;

#[test]
fn every_way_through_a_body_gives_what_the_call_gives() {
    let names = ["locals", "returns", "pairs", "stops", "deep", "catches"];
    let outcomes = |inlining, opt_level| {
        let mut world = World::new();
        let settings = Settings { verifier: true, inlining, opt_level, ..Settings::default() };
        let image = compile(MODULE.as_bytes(), &settings).unwrap();
        let module = Module::from_bytes(&world.engine, &image).unwrap();
        let instance = world.linker.instantiate(&mut world.store, &module).unwrap();
        let mut out = Vec::new();
        for name in names {
            for argument in [0, 1, 2, 3, 4, 5, 7, 49, 50, 51, 99, 101, 1000, -1, i32::MIN] {
                if name == "locals" && !(1..=1000).contains(&argument) {
                    continue;
                }
                let result = world.call(instance, name, &[Val::I32(argument)]);
                let global = world.call(instance, "global", &[Val::I32(0)]).unwrap();
                let result =
                    result.map_err(|error| error.to_string().lines().next().map(str::to_owned));
                out.push(format!("{name}({argument}) = {result:?}, global {global:?}"));
            }
        }
        out
    };
    let expected = outcomes(false, OptLevel::None);
    assert!(expected.iter().any(|line| line.contains("unreachable")), "{expected:#?}");
    for opt_level in [OptLevel::None, OptLevel::Speed] {
        let found = outcomes(true, opt_level);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected);
        }
    }
}
