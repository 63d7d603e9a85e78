//! What does not compile, and what is said about it.

use super::compile_on;
use crate::compile::{CompileError, compile};
use crate::config::Settings;
use crate::module::decode::DecodeError;
use crate::module::limits;

fn error(wat: &str, threads: usize) -> CompileError {
    compile_on(&wat::parse_str(wat).unwrap(), &Settings::default(), threads).unwrap_err()
}

#[test]
fn the_first_invalid_function_is_reported_whatever_the_threads() {
    let good = "(func (result i32) (i32.const 1))".repeat(50);
    let wat = format!("(module {good} (func (result i32)) {good} (func (i32.const 1)) {good})");
    let first = error(&wat, 1).to_string();
    assert!(first.starts_with("invalid module at byte offset 0x"), "{first}");
    for threads in [2, 4, 16] {
        assert_eq!(error(&wat, threads).to_string(), first);
    }
}

#[test]
fn invalid_code_that_cannot_be_reached_is_still_refused() {
    for body in [
        "unreachable (i64.add (i32.const 1) (i64.const 1)) drop",
        "(block (br 0) (br 5))",
        "(return) (local.get 7) drop",
    ] {
        let error = error(&format!("(module (func {body}))"), 1);
        assert!(matches!(error, CompileError::Decode(DecodeError::Invalid { .. })), "{error}");
    }
}

/// A function with calls inside `try_table`s inside each other, each with a clause for every tag.
fn with_handlers(tags: usize, nested: usize, calls: usize) -> String {
    let clauses: String = (0..tags).map(|n| format!("(catch {n} $b)")).collect();
    format!(
        r#"(module (import "m" "f" (func $f)) {} (func (block $b {} {} {})))"#,
        "(tag)".repeat(tags),
        format!("(try_table {clauses}").repeat(nested),
        "(call $f)".repeat(calls),
        ")".repeat(nested)
    )
}

#[test]
fn calls_with_too_many_handlers_are_refused() {
    let error = error(&with_handlers(1000, 1, limits::HANDLERS / 1000 + 1), 1);
    assert!(error.to_string().contains("handlers around its calls"), "{error}");
    // What can never be reached is none.
    let wat = with_handlers(2, 300, 300);
    assert!(compile(wat.as_bytes(), &Settings::default()).is_ok());
}

#[test]
fn blocks_nested_without_end_are_refused() {
    // Binary, for the text's parser has a limit of its own.
    let body_of = |depth: usize| {
        let mut body = vec![0];
        body.extend([0x02, 0x40].repeat(depth));
        body.extend([0x0b].repeat(depth + 1));
        body
    };
    assert!(compile(&module_of(&body_of(limits::NESTING - 1)), &Settings::default()).is_ok());
    let error = compile(&module_of(&body_of(limits::NESTING)), &Settings::default()).unwrap_err();
    assert!(error.to_string().contains("blocks inside each other"), "{error}");
}

/// A module of one exported function `() -> ()`.
fn module_of(body: &[u8]) -> Vec<u8> {
    let leb = |n: usize| [n as u8 & 0x7f | 0x80, (n >> 7) as u8 & 0x7f | 0x80, (n >> 14) as u8];
    let mut out =
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x05\x01\x01f\0\0\x0a".to_vec();
    out.extend(leb(body.len() + 4));
    out.push(1);
    out.extend(leb(body.len()));
    out.extend(body);
    out
}
