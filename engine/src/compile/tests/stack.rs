//! Which functions look at the stack's limit.

use super::golden::traps;
use crate::abi::trap::TrapKind;

/// Whether the prologue compares the stack pointer.
fn looks_at_the_limit(wat: &str) -> bool {
    traps(wat).contains(&TrapKind::StackOverflow)
}

#[test]
fn functions_that_call_nothing_do_not_look_at_the_stacks_limit() {
    let inner = "(func $f (param i32) (result i32) (i32.mul (local.get 0) (local.get 0)))";
    assert!(!looks_at_the_limit(&format!("(module {inner})")));
    // Not inlined, for it is large.
    let work = "(drop (i32.mul (local.get 0) (local.get 0)))".repeat(300);
    let large = format!("(func $f (param i32) (result i32) {work} (local.get 0))");
    let caller = "(func (param i32) (result i32) (call $f (call $f (local.get 0))))";
    assert!(!looks_at_the_limit(&format!("(module {large} {caller})")));
    let recursive = "(func $g (export \"\") (param i32) (result i32) (call $g (local.get 0)))";
    assert!(looks_at_the_limit(&format!("(module {recursive})")));
    let host = "(import \"\" \"\" (func $h)) (func (call $h))";
    assert!(looks_at_the_limit(&format!("(module {host})")));
    let indirect = "(table 1 funcref) (func (call_indirect (i32.const 0)))";
    assert!(looks_at_the_limit(&format!("(module {indirect})")));
}

#[test]
fn only_so_many_functions_in_a_row_do_not_look_at_the_limit() {
    let work = "(drop (i32.mul (local.get 0) (local.get 0)))".repeat(300);
    let chain = |count: usize| {
        let mut wat = format!("(module (func $f0 (param i32) {work})");
        for n in 1..count {
            wat += &format!("(func $f{n} (param i32) {work} (call $f{} (local.get 0)))", n - 1);
            wat += &format!("(export \"{n}\" (func $f{n}))");
        }
        wat + ")"
    };
    assert!(!looks_at_the_limit(&chain(4)));
    assert!(looks_at_the_limit(&chain(5)));
}

#[test]
fn a_large_frame_looks_at_the_limit() {
    let values = 700;
    let sets: String = (0..values)
        .map(|n| format!("(local.set {n} (f64.load offset={} (i32.const 0)))", n * 8))
        .collect();
    let stores: String = (0..values)
        .map(|n| format!("(f64.store offset={} (i32.const 0) (local.get {n}))", 8 * (values - n)))
        .collect();
    let wat =
        format!("(module (memory 1) (func (local {}) {sets} {stores}))", "f64 ".repeat(values));
    assert!(looks_at_the_limit(&wat));
}
