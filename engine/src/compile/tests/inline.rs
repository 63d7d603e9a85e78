//! Which calls are replaced, and which functions are left without code.

use super::golden::{assert_lacks, generic};
use super::image_of;
use crate::image::CodeImage;

/// Whether each function of the module has code.
fn have_code(wat: &str, functions: usize) -> Vec<bool> {
    let blob = image_of(wat);
    let image = CodeImage::new(&blob).unwrap();
    (0..functions).map(|n| !image.func(n).unwrap().is_empty()).collect()
}

#[test]
fn a_small_body_runs_on_from_the_callers_code() {
    let code = generic(
        "(module (func $add (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
            (func (param i32) (result i32) (call $add (call $add (local.get 0) (i32.const 1)) (i32.const 2))))",
    );
    assert_lacks(&code, "call");
    assert_lacks(&code, "j");
    assert!(code.contains("leal 3(%rsi), %eax"), "{code}");
}

#[test]
fn recursion_stays_a_call() {
    let code = generic(
        "(module (func $even (param i32) (result i32)
                (if (result i32) (local.get 0)
                    (then (call $odd (i32.sub (local.get 0) (i32.const 1)))) (else (i32.const 1))))
            (func $odd (param i32) (result i32)
                (if (result i32) (local.get 0)
                    (then (call $even (i32.sub (local.get 0) (i32.const 1)))) (else (i32.const 0)))))",
    );
    assert!(code.contains("call"), "{code}");
}

#[test]
fn what_is_only_part_of_others_has_no_code() {
    let wat = r#"(module (table 1 funcref) (elem (i32.const 0) $escapes)
        (func $inner (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
        (func $middle (param i32) (result i32) (i32.add (call $inner (local.get 0)) (i32.const 1)))
        (func $escapes (param i32) (result i32) (i32.sub (call $inner (local.get 0)) (i32.const 2)))
        (func $tail (param i32) (result i32) (i32.add (local.get 0) (i32.const 4)))
        (func (export "f") (param i32) (result i32)
            (drop (call $tail (i32.const 1)))
            (drop (call $escapes (i32.const 1)))
            (return_call $tail (call $middle (local.get 0))))
        (func $never_called))"#;
    assert_eq!(have_code(wat, 6), [false, false, true, true, true, true]);
}

#[test]
fn a_body_that_ends_by_a_tail_call_stays_a_function() {
    let wat = r#"(module
        (func $f (export "f") (param i32) (result i32) (call $g (local.get 0)))
        (func $g (param i32) (result i32) (return_call $f (local.get 0))))"#;
    assert_eq!(have_code(wat, 2), [true, true]);
}
